"""The sw-description of a SPEC, as JSON that SWUpdate reads without loss: texts as properties, numbers as offsets.

Everything is under the board, `software.<board>.<set>.<mode>`, with the hardware revisions at the board, so that another
board finds neither something to install nor a revision that it could match.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from update.bundle.entries import VERITY_HASH_OFFSET, VERITY_ROOT_HASH, Compression, Handler
from update.bundle.reader import SIZE_PROPERTY
from update.bundle.writer import Piece
from update.digest import Digest
from update.publish.spec import BundleSpec, ImageSpec, ScriptSpec, SlotSpec


@dataclass(frozen=True, slots=True)
class Stored:
    """A member as it goes into the archive: where its bytes are, their hash, and the size of what they unpack to.

    `url` is the whole `.zck` of a delta.
    """

    piece: Piece
    sha256: Digest
    unpacked_bytes: int
    url: str = ""


def describe(spec: BundleSpec, stored: Mapping[str, Stored]) -> bytes:
    """The description of `spec`, whose members are `stored` under their names in the archive."""
    head = spec.bundle
    board: dict[str, object] = {"hardware-compatibility": list(head.hardware.revisions)}
    sets: dict[str, dict[str, object]] = {}
    for slot in spec.slots:
        sets.setdefault(slot.set, {})[slot.mode] = _selection(spec, slot, stored)
    software: dict[str, object] = {"version": head.version}
    if head.description:
        software["description"] = head.description
    software[head.hardware.board] = board | sets
    return json.dumps({"software": software}, indent=1).encode("ascii") + b"\n"


def _selection(spec: BundleSpec, slot: SlotSpec, stored: Mapping[str, Stored]) -> dict[str, object]:
    sections: dict[str, list[dict[str, object]]] = {
        "images": [_image(spec, image, slot, stored[image.member]) for image in spec.images],
        "scripts": [_script(script, stored[script.member]) for script in spec.scripts],
        "bootenv": [{"name": variable.name, "value": variable.value_for(slot.key)} for variable in spec.bootenv],
    }
    return {name: entries for name, entries in sections.items() if entries}


def _script(script: ScriptSpec, stored: Stored) -> dict[str, object]:
    entry: dict[str, object] = {"filename": script.member, "type": script.type.value, "sha256": stored.sha256}
    return entry | {"data": script.data} if script.data else entry


def _image(spec: BundleSpec, image: ImageSpec, slot: SlotSpec, stored: Stored) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": image.name,
        "version": image.version or spec.bundle.version,
        "filename": image.member,
        "type": image.type.value,
        "device": image.devices[slot.key],
        "sha256": stored.sha256,
    }
    compressed = Compression.ZSTD if image.type is Handler.RDIFF else image.compressed
    if compressed is not Compression.NONE:
        entry["compressed"] = compressed.value
    if image.offset:
        entry["offset"] = image.offset
    for flag in ("installed_directly", "install_if_different", "install_if_higher"):
        if getattr(image, flag):
            entry[flag.replace("_", "-")] = True
    properties = _properties(image, slot, stored)
    return entry | {"properties": properties} if properties else entry


def _properties(image: ImageSpec, slot: SlotSpec, stored: Stored) -> dict[str, str]:
    found: dict[str, str] = {}
    if image.compressed is not Compression.NONE:
        found[SIZE_PROPERTY] = str(stored.unpacked_bytes)
    if image.type is Handler.DELTA:
        found |= {
            "url": stored.url,
            "source": image.sources[slot.key],
            "chain": Handler.RAW.value,
            "max-ranges": str(image.max_ranges),
            "zckloglevel": "error",
        }
    if image.type is Handler.RDIFF:
        found["rdiffbase"] = image.sources[slot.key]
    if image.verity is not None:
        found |= {VERITY_ROOT_HASH: image.verity.root_hash, VERITY_HASH_OFFSET: str(image.verity.hash_offset)}
    return found
