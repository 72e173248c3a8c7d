"""What lies on a medium, told by its content: repositories, single bundles, requests. Names are for people, and decide nothing.

- A *repository* is a folder that holds `metadata/` with a timestamp (TUF 1.0, section 6); nothing inside it is looked at singly.
- A *bundle* begins as a cpio archive in the new ASCII formats does (`.swu`), or as a squashfs image (`.raucb`).
- A *request* is a small JSON object that says of itself that it is one.

What systems leave on every stick (recycle bins, indexes, the AppleDouble companions of files) and our own reports are passed
over, as is everything else: a technician's holiday pictures are nobody's mistake.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from media.medium import Entry, EntryKind, Medium, Parts
from media.records import MAX_CONTENTS, Kind
from update.errors import MediumError, MediumGoneError, MediumLimitError, WireError

REPORTS: Final = "FIELDRELAY"
"""The folder of our own reports on a medium."""
REQUEST_SCHEMA: Final = "fieldrelay-request-1"
MAX_REQUEST_BYTES: Final = 64 << 10
_HEAD_BYTES = 16
_PASSED_OVER = frozenset({
    ".fseventsd", ".spotlight-v100", ".temporaryitems", ".trashes", "$recycle.bin", "found.000", "lost+found", "recycler",
    "system volume information", REPORTS.lower(),
})  # fmt: skip
_INSIDE = frozenset({"metadata", "targets"})
_CPIO = (b"070701", b"070702")
_SQUASHFS = b"hsqs"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing on a medium; `parts` is the folder of a repository (empty: the medium itself), or the file."""

    kind: Kind
    parts: Parts
    size_bytes: int = 0


def recognise(medium: Medium) -> tuple[Found, ...]:
    """Everything on `medium` that is meant for a gateway, in the order in which it lies there.

    A file that cannot be read is passed over: what it might have been, nobody knows. Errors: `MediumGoneError`,
    `MediumUnreadableError` for a folder, `MediumLimitError`.
    """
    entries = [entry for entry in medium.walk() if not _is_passed_over(entry.parts)]
    found = _repositories(entries)
    repositories = {each.parts for each in found}
    for entry in entries:
        if entry.kind is EntryKind.FILE and not _is_inside(entry.parts, repositories):
            found += _single(medium, entry)
        if len(found) > MAX_CONTENTS:
            raise MediumLimitError(f"the medium holds more than {MAX_CONTENTS} bundles; put what one site needs on it")
    return tuple(found)


def request_of(data: bytes) -> Mapping[str, object] | None:
    """The request that these bytes are; None for anything else."""
    if len(data) > MAX_REQUEST_BYTES:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == REQUEST_SCHEMA else None


def _repositories(entries: list[Entry]) -> list[Found]:
    files = {entry.parts for entry in entries if entry.kind is EntryKind.FILE}
    found: list[Found] = []
    for entry in entries:
        holds_metadata = entry.kind is EntryKind.FOLDER and entry.parts[-1] == "metadata"
        if not holds_metadata or (*entry.parts, "timestamp.json") not in files:
            continue
        if not _is_inside(entry.parts, {each.parts for each in found}):
            found.append(Found(Kind.REPOSITORY, entry.parts[:-1]))
    return found


def _single(medium: Medium, entry: Entry) -> Iterator[Found]:
    head = _head(medium, entry.parts, MAX_REQUEST_BYTES if _may_be_request(entry) else _HEAD_BYTES)
    if head.startswith(_CPIO) or head.startswith(_SQUASHFS):
        yield Found(Kind.BUNDLE, entry.parts, entry.size_bytes)
    elif _may_be_request(entry) and request_of(head) is not None:
        yield Found(Kind.REQUEST, entry.parts, entry.size_bytes)


def _may_be_request(entry: Entry) -> bool:
    return 0 < entry.size_bytes <= MAX_REQUEST_BYTES


def _head(medium: Medium, parts: Parts, length: int) -> bytes:
    try:
        with medium.open(parts) as file:
            return file.read(length)
    except MediumGoneError:
        raise
    except (OSError, MediumError, WireError):
        return b""


def _is_passed_over(parts: Parts) -> bool:
    return any(name.lower() in _PASSED_OVER or name.startswith("._") for name in parts)


def _is_inside(parts: Parts, repositories: set[Parts]) -> bool:
    return any(parts[:count] in repositories and parts[count] in _INSIDE for count in range(len(parts)))
