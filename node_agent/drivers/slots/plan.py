"""Judging a bundle for one slot: everything that could be refused is refused here, before the first byte is written.

Every image is for a part of the inactive slot, and every required part has exactly one; a delta takes its chunks from a
part of the running slot, and its header is the one that was signed; dm-verity's properties are well-formed. Nothing is
opened for writing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from node_agent.handlers.bootenv import boot_variables
from node_agent.handlers.raw import plain_size
from node_agent.handlers.script import Script, read_script
from node_agent.handlers.verity import Verity, read_verity
from update.bundle.description import Selection
from update.bundle.entries import Entry, Handler
from update.bundle.reader import open_member
from update.bundle.verified import VerifiedBundle
from update.chunks.zchunk import MAX_HEADER_BYTES
from update.errors import LimitError, SlotError, UnsupportedError
from update.trust.verified import VerifiedChunkIndex, verify_chunk_index


@dataclass(frozen=True, slots=True)
class RemoteChunks:
    """The delta side of an image: the proved index, where the whole `.zck` is, and the part that holds the old image."""

    index: VerifiedChunkIndex
    url: str
    source: PartConfig


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image for one part; `size` is how many bytes of the part it takes (a compressed one may not say: 0)."""

    entry: Entry
    part: PartConfig
    size: int
    remote: RemoteChunks | None
    verity: Verity | None


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """A bundle, judged for one slot."""

    version: str
    images: tuple[PlannedImage, ...]
    scripts: tuple[Script, ...]
    boot_variables: Mapping[str, str]


def plan_slot(
    bundle: VerifiedBundle, selection: Selection, slot: SlotConfig, active: SlotConfig, *, verity_tool: str
) -> SlotPlan:
    """Judge `selection` of `bundle` for the inactive `slot`. Errors: `SlotError`, `HandlerError`, any `BundleError`."""
    images = tuple(_plan_image(bundle, entry, slot, active, verity_tool) for entry in selection.images)
    written = [image.part.name for image in images]
    for part in slot.parts:
        if written.count(part.name) > 1:
            raise SlotError(
                f"the bundle has {written.count(part.name)} images for part {part.name} of slot {slot.name}; one is written"
            )
        if part.required and part.name not in written:
            raise SlotError(
                f"the bundle has no image for part {part.name} ({part.device}) of slot {slot.name}, which would keep what an "
                "older release left there; build it with all parts"
            )
    scripts = tuple(read_script(bundle, entry) for entry in selection.scripts)
    return SlotPlan(selection.version, images, scripts, boot_variables(selection.bootenv))


def _plan_image(bundle: VerifiedBundle, entry: Entry, slot: SlotConfig, active: SlotConfig, verity_tool: str) -> PlannedImage:
    part = slot.part(entry.device)
    if part is None:
        raise SlotError(
            f"image {entry.filename} is for {entry.device}, which is no part of the inactive slot {slot.name} "
            f"({', '.join(each.device for each in slot.parts)}); check the bundle's selection {slot.selection!r}"
        )
    if entry.type is Handler.RDIFF:
        raise UnsupportedError(
            f"image {entry.filename} is an rdiff, which is for SWUpdate itself: order the release whole, or as a delta of chunks"
        )
    remote = _plan_remote(bundle, entry, active)
    size = plain_size(bundle, entry) if remote is None else remote.index.header.image_size
    return PlannedImage(entry, part, entry.offset + size, remote, read_verity(entry, verity_tool))


def _plan_remote(bundle: VerifiedBundle, entry: Entry, active: SlotConfig) -> RemoteChunks | None:
    if entry.delta is None:
        return None
    source = active.part(entry.delta.source)
    if source is None:
        raise SlotError(
            f"delta {entry.filename} takes chunks from {entry.delta.source}, which is no part of the running slot {active.name} "
            f"({', '.join(each.device for each in active.parts)})"
        )
    size = bundle.members[entry.filename].size
    if size > MAX_HEADER_BYTES:
        raise LimitError(f"{entry.filename} has {size} bytes; a zchunk header has at most {MAX_HEADER_BYTES}")
    with open_member(bundle, entry.filename) as stream:
        raw = b"".join(iter(lambda: stream.read(MAX_HEADER_BYTES), b""))
    index = verify_chunk_index(raw, sha256=entry.sha256, provenance=bundle.provenance, source=entry.filename)
    return RemoteChunks(index, entry.delta.url, source)
