"""What one site needs of a repository, picked and copied onto a stick.

1. A site is told by the last report of its gateway, or by a list of its hardware; either only chooses, it proves nothing.
2. Each hardware gets its newest release, by release counter: as a delta with its chunk files where every device of that hardware
   runs a release that this repository lists, else whole. Release plans always go along: they are small.
3. Content first, metadata after it, the timestamp last: a stick that was pulled too early offers nothing half. Every file is read
   back from the stick and compared with what was signed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from update.bundle.rauc_layout import is_rauc_bundle
from update.digest import Digest
from update.durable import Disk
from update.errors import ConfigurationError, LengthOrHashError, MediumFullError, MediumUnreadableError, StateError
from update.identity import Hardware
from update.provided import read_provided
from update.publish.published import Current, read_current
from update.trust import rules
from update.trust.verified import TargetInfo

MAX_SITE_BYTES: Final = 64 << 20
SITE_SCHEMA: Final = "fieldrelay-site-1"
_BLOCK_BYTES: Final = 1 << 20
_ANYBODY: Final = 0o777  # file systems of sticks refuse that any permission be taken away

Report = Callable[[str, int, int], None]
"""Called with (file, bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the site; `sha256` of the bundle that it runs, empty if unknown."""

    node: str
    hardware: Hardware
    version: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What will happen to a device: the version that it will get, or why none."""

    device: Device
    version: str
    words: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes onto the stick, and what it will do there. It is good until `expires`."""

    targets: tuple[TargetInfo, ...]
    metadata: tuple[tuple[str, bytes], ...]
    prospects: tuple[Prospect, ...]
    expires: datetime

    @property
    def size_bytes(self) -> int:
        """Of all that is copied."""
        return sum(info.length for info in self.targets) + sum(len(data) for _, data in self.metadata)


def read_site(file: Path) -> tuple[Device, ...]:
    """The devices of a report (`inventory`) or of `{"schema": "fieldrelay-site-1", "devices": [{"hardware": "board:1"}]}`.

    Errors: `ConfigurationError`.
    """
    try:
        document = json.loads(read_provided(file, max_bytes=MAX_SITE_BYTES))
        signed = document.get("signed", document)
        found = signed["devices"] if signed.get("schema") == SITE_SCHEMA else signed["inventory"]
        return tuple(_device(each) for each in found if each.get("hardware"))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{file} is neither a report of a gateway nor a {SITE_SCHEMA}") from error


def _device(value: Mapping[str, object]) -> Device:
    hardware = Hardware.parse(str(value["hardware"]))
    return Device(str(value.get("node", hardware)), hardware, str(value.get("version", "")), str(value.get("sha256", "")))


def select(repository: Path, devices: Sequence[Device]) -> Selection:
    """Pick for these devices. Errors: `StateError` for a repository that publishes nothing, `CorruptError`, `MetadataError`."""
    current = read_current(repository / "metadata")
    if current.root is None or current.timestamp is None or current.snapshot is None:
        raise StateError(f"{repository} has published nothing; `fieldrelay repo publish` does that")
    listed = list(_listed(current))
    chosen = {info.path: info for info in listed if info.custom.plan}
    prospects = []
    for hardware in dict.fromkeys(device.hardware for device in devices):
        alike = [device for device in devices if device.hardware == hardware]
        newest = _newest(hardware, listed)
        chosen.update({info.path: info for info in _forms(alike, newest, listed)})
        prospects += [_prospect(device, newest) for device in alike]
    expires = min(current.timestamp.signed.expires, current.snapshot.signed.expires)
    metadata = tuple(_metadata(repository / "metadata", current))
    return Selection(tuple(sorted(chosen.values(), key=lambda info: info.path)), metadata, tuple(prospects), expires)


def write(selection: Selection, repository: Path, stick: Path, disk: Disk, report: Report) -> None:
    """Copy and read back (rule 3); what lies there already and is right is not written again.

    Errors: `MediumFullError`, `LengthOrHashError` for a damaged repository or a stick that keeps other bytes, `StoreError`.
    """
    free, needed = shutil.disk_usage(stick).free, sum(info.length for info in selection.targets if not _is_there(stick, info))
    if needed > free:
        raise MediumFullError(f"{stick} has {free} bytes free, {needed} are needed; take a larger stick, or remove what is on it")
    done = 0
    for info in selection.targets:
        final = stick / info.wire_path
        if not _is_there(stick, info):
            disk.make_folder(final.parent, mode=_ANYBODY)
            _copy(repository / info.wire_path, final, info, disk)
        done += info.length
        report(info.path, done, selection.size_bytes)
    disk.make_folder(stick / "metadata", mode=_ANYBODY)
    for name, data in selection.metadata:
        disk.write_file(stick / "metadata" / name, data, mode=_ANYBODY)
        if b"".join(_blocks(stick / "metadata" / name)) != data:
            raise LengthOrHashError(f"{name} reads back from {stick} as other bytes; use another stick")
        done += len(data)
        report(name, done, selection.size_bytes)


def _listed(current: Current) -> Iterator[TargetInfo]:
    """Every target; where roles list one path, the first that delegation order would find is `targets` itself."""
    roles = sorted(current.targets, key=lambda role: role != "targets")
    seen: set[str] = set()
    for role in roles:
        for path in current.targets[role].signed.targets:
            info = rules.target_info("stick", current.targets[role], path, prefixed=True)
            if info is not None and path not in seen:
                seen.add(path)
                yield info


def _is_bundle(info: TargetInfo) -> bool:
    return info.path.endswith(".swu") or is_rauc_bundle(info.path)


def _newest(hardware: Hardware, listed: Sequence[TargetInfo]) -> TargetInfo | None:
    fitting = [info for info in listed if _is_bundle(info) and hardware.accepts(info.custom.hw_ids)]
    whole = [info for info in fitting if not info.custom.delta_of] or fitting
    return max(whole, key=lambda info: info.custom.release_counter, default=None)


def _forms(alike: Sequence[Device], newest: TargetInfo | None, listed: Sequence[TargetInfo]) -> list[TargetInfo]:
    """Rule 2."""
    if newest is None:
        return []
    known = {str(info.sha256) for info in listed}
    deltas = [info for info in listed if info.custom.delta_of == newest.path]
    counter, hardware = newest.custom.release_counter, alike[0].hardware
    chunks = [
        info
        for info in listed
        if info.custom.zck_header and info.custom.release_counter == counter and hardware.accepts(info.custom.hw_ids)
    ]
    fits = bool(deltas) and bool(chunks) and all(device.sha256 in known for device in alike)
    return [*deltas, *chunks] if fits or newest.custom.delta_of else [newest]


def _prospect(device: Device, newest: TargetInfo | None) -> Prospect:
    if newest is None:
        return Prospect(device, "", "nothing here is for it")
    if device.sha256 == newest.sha256 or (device.version and device.version == newest.custom.version):
        return Prospect(device, newest.custom.version, "runs it already")
    return Prospect(device, newest.custom.version, f"runs {device.version or 'something unknown'} and will get this")


def _metadata(folder: Path, current: Current) -> Iterator[tuple[str, bytes]]:
    """Every file that clients ask for, roots first, the timestamp last."""
    roots = [file for file in folder.glob("[0-9]*.root.json") if file.name.count(".") == 2]
    for file in sorted(roots, key=lambda file: int(file.name.partition(".")[0])):
        yield file.name, file.read_bytes()
    for role, targets in current.targets.items():
        yield f"{targets.version}.{role}.json", targets.data
    if current.snapshot is not None and current.timestamp is not None:
        yield f"{current.snapshot.version}.snapshot.json", current.snapshot.data
        yield "timestamp.json", current.timestamp.data


def _copy(source: Path, final: Path, info: TargetInfo, disk: Disk) -> None:
    part = final.with_name(f".{final.name}.part")
    with disk.open(part, fresh=True, mode=_ANYBODY) as copy:
        written = 0
        for block in _blocks(source):
            copy.write_at(written, block)
            written += len(block)
        copy.sync()
    if _digest(part) != (info.sha256, info.length):
        disk.remove(part)
        raise LengthOrHashError(f"{info.path} reads back as other bytes than were signed; check {source}, or use another stick")
    disk.publish(part, final)


def _is_there(stick: Path, info: TargetInfo) -> bool:
    final = stick / info.wire_path
    return final.is_file() and final.stat().st_size == info.length and _digest(final) == (info.sha256, info.length)


def _digest(file: Path) -> tuple[Digest, int]:
    hasher, length = hashlib.sha256(), 0
    for block in _blocks(file):
        hasher.update(block)
        length += len(block)
    return Digest(hasher.hexdigest()), length


def _blocks(file: Path) -> Iterator[bytes]:
    """The bytes of a file from its medium, not from what the system remembers of it."""
    try:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while block := opened.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise MediumUnreadableError(f"cannot read {file}: {error.strerror or error}") from error
