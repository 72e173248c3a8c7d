"""The entries of a FAT folder: short names, and the long names before them ("FAT: General Overview" 1.03, sections 6 and 7).

A long name is kept in up to 20 entries before its short one, the last part first, each with the checksum of the short name. A run
that is torn, out of order or of another checksum is passed over, and the short name counts. Volume labels and deleted entries are
no files. A name that could not be one (empty, `.`, `..`, with a slash or NUL) is passed over: nothing opens it.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_ENTRY = 32
_LONG, _VOLUME, _FOLDER = 0x0F, 0x08, 0x10
_LAST, _DELETED, _KANJI = 0x40, 0xE5, 0x05
_LOWER_BODY, _LOWER_SUFFIX = 0x08, 0x10
_MOST_PARTS = 20


@dataclass(frozen=True, slots=True)
class Named:
    """One file or folder; `cluster` is its first, 0 for an empty file."""

    name: str
    is_folder: bool
    cluster: int
    size_bytes: int


@dataclass(slots=True)
class _LongName:
    """A long name while it is put together, from its last part to its first."""

    parts: list[bytes]
    due: int = 0
    checksum: int = -1

    def take(self, entry: bytes) -> None:
        number = entry[0] & 0x3F
        if entry[0] & _LAST and 1 <= number <= _MOST_PARTS:
            self.parts, self.due, self.checksum = [], number, entry[13]
        if number != self.due or not number or entry[13] != self.checksum:
            self.parts, self.due = [], 0
            return
        self.parts.append(entry[1:11] + entry[14:26] + entry[28:32])
        self.due -= 1

    def give(self, short: bytes) -> str | None:
        """The name, if it is whole and meant for `short`; then it is forgotten."""
        parts, self.parts = self.parts, []
        if not parts or self.due or self.checksum != checksum_of(short):
            return None
        text = b"".join(reversed(parts)).decode("utf-16-le", "replace")
        return text.partition("\0")[0]


def named_entries(blocks: Iterable[bytes]) -> Iterator[Named]:
    """The files and folders in the bytes of a folder."""
    long = _LongName([])
    for block in blocks:
        for start in range(0, len(block) - _ENTRY + 1, _ENTRY):
            entry = block[start : start + _ENTRY]
            if entry[0] == 0:
                return
            if entry[0] == _DELETED:
                long.parts = []
            elif entry[11] & 0x3F == _LONG:
                long.take(entry)
            elif not entry[11] & _VOLUME:
                name = long.give(entry[:11]) or short_name(entry)
                if _is_name(name):
                    yield _named(name, entry)


def checksum_of(short: bytes) -> int:
    """Of the eleven bytes of a short name (section 7.2)."""
    total = 0
    for byte in short[:11]:
        total = ((total >> 1) | (total & 1) << 7) + byte & 0xFF
    return total


def short_name(entry: bytes) -> str:
    """The short name as people see it; its case bits are honoured as Windows NT and Linux do."""
    raw = bytes([_DELETED]) + entry[1:11] if entry[0] == _KANJI else entry[:11]
    body, suffix = (part.decode("cp437").rstrip(" ") for part in (raw[:8], raw[8:11]))
    body = body.lower() if entry[12] & _LOWER_BODY else body
    suffix = suffix.lower() if entry[12] & _LOWER_SUFFIX else suffix
    return f"{body}.{suffix}" if suffix else body


def _named(name: str, entry: bytes) -> Named:
    high, low, size = struct.unpack_from("<H4xHI", entry, 20)
    is_folder = bool(entry[11] & _FOLDER)
    return Named(name, is_folder, high << 16 | low, 0 if is_folder else size)


def _is_name(name: str) -> bool:
    return name not in {"", ".", ".."} and not set(name) & {"/", "\0"}
