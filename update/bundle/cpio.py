"""The cpio archive of a `.swu`: "newc" (070701) and "crc" (070702), read as a stream and written.

An entry is a header of 110 bytes (a magic and 13 numbers of 8 hexadecimal digits), the name with its NUL, zeros up to a
multiple of 4, the data, zeros up to a multiple of 4; an entry named `TRAILER!!!` ends the archive, zeros fill the last
block (cpio(5)). The `check` number is the sum of all data bytes modulo 2**32, in crc archives only.

An archive comes from strangers: nothing is allocated by a size it states, every field is bounded before it is used, and
names that could leave a folder, look like an option or stand twice are refused, as is everything but a regular file.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from update.errors import ContainerError, LimitError

MAX_MEMBER_BYTES: Final = (1 << 32) - 1
MAX_NAME_BYTES: Final = 256  # with the NUL; SWUpdate's MAX_IMAGE_FNAME
MAX_MEMBERS: Final = 1024
_HEADER_BYTES = 110
_TRAILER = "TRAILER!!!"
_BLOCK_BYTES = 512
_MAX_FILL_BYTES = 64 << 10  # zeros after the trailer: block sizes up to this one are seen in the field
_READ_BYTES = 1 << 18
_REGULAR_MODE = stat.S_IFREG | 0o644
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")
_NAME = re.compile(r"[A-Za-z0-9_.+@=,~#%()\[\]{} !&^$';:-]+", re.ASCII)


class Form(Enum):
    """The two kinds of archive that SWUpdate reads, by their magic."""

    NEWC = b"070701"
    CRC = b"070702"


class Readable(Protocol):
    """What is read from: anything with `read`, which may return less than asked."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one archive; sizes in bytes."""

    members: int = MAX_MEMBERS
    member_bytes: int = MAX_MEMBER_BYTES


@dataclass(frozen=True, slots=True)
class Header:
    """One entry: its data are `size` bytes at `offset` of the archive."""

    name: str
    offset: int
    size: int
    check: int | None


def check_member_name(name: str) -> str:
    """Return `name` if it may name a member, else `ContainerError`."""
    if not _NAME.fullmatch(name) or name.startswith("-") or ".." in name or name in {".", _TRAILER}:
        raise ContainerError(
            f"the archive names a member {name[:80]!r}; allowed are printable names without '/', '..' or a leading '-'"
        )
    if len(name) >= MAX_NAME_BYTES:
        raise ContainerError(f"the archive names a member of {len(name)} characters; at most {MAX_NAME_BYTES - 1} are allowed")
    return name


class ArchiveReader:
    """An archive read front to back, once, without seeking: `for header in reader`, and `read` within each.

    What is left unread of an entry is read when the next is asked for, so that checksum and padding are always judged.
    Errors: `ContainerError` for what is malformed or forbidden, `LimitError` for what is too large or too many.
    """

    def __init__(self, stream: Readable, *, limits: Limits | None = None) -> None:
        self._stream = stream
        self._limits = limits or Limits()
        self._position = 0
        self._current: Header | None = None
        self._left = 0
        self._sum = 0
        self._form: bytes | None = None
        self._names: set[str] = set()

    def __iter__(self) -> Iterator[Header]:
        """Iterate over the entries, up to the trailer, which must be there and be followed by zeros only."""
        while True:
            self._finish_entry()
            header = self._next_header()
            if header is None:
                self._check_fill()
                return
            self._current, self._left, self._sum = header, header.size, 0
            yield header

    def read(self, size: int = _READ_BYTES) -> bytes:
        """Up to `size` bytes of the current entry; none at its end."""
        wanted = min(size, self._left, _READ_BYTES)
        if wanted <= 0:
            return b""
        data = self._stream.read(wanted)
        if not data:
            name = self._current.name if self._current else ""
            raise ContainerError(f"the archive ends {self._left} bytes before the end of {name!r}; fetch it again")
        self._position += len(data)
        self._left -= len(data)
        if self._current is not None and self._current.check is not None:
            self._sum += sum(data)
        return data

    def _finish_entry(self) -> None:
        """Drain the current entry, judge its checksum and step over its padding."""
        entry = self._current
        if entry is None:
            return
        while self.read():
            pass
        if entry.check is not None and entry.check != self._sum & 0xFFFFFFFF:
            raise ContainerError(
                f"member {entry.name!r} sums up to {self._sum & 0xFFFFFFFF:08x}, its header says {entry.check:08x}; "
                "the archive is damaged, fetch it again"
            )
        self._skip_padding(-entry.size % 4, entry.name)
        self._current = None

    def _next_header(self) -> Header | None:
        raw = self._exactly(_HEADER_BYTES, "a header")
        magic, digits = raw[:6], raw[6:]
        self._check_magic(magic)
        if not _HEX.fullmatch(digits):
            raise ContainerError(
                f"a header at byte {self._position - _HEADER_BYTES} holds something other than hexadecimal digits"
            )
        fields = [int(digits[start : start + 8], 16) for start in range(0, 104, 8)]
        mode, size, name_size, check = fields[1], fields[6], fields[11], fields[12]
        name = self._name(name_size)
        if name == _TRAILER:
            if size:
                raise ContainerError(f"the trailer of the archive holds {size} bytes; it must be empty")
            return None
        self._check_entry(name, mode, size)
        return Header(name, self._position, size, check if magic == Form.CRC.value else None)

    def _check_magic(self, magic: bytes) -> None:
        if magic not in {Form.NEWC.value, Form.CRC.value}:
            raise ContainerError(
                f"not a cpio archive of the form newc or crc: {magic!r} at byte {self._position - _HEADER_BYTES}"
            )
        if self._form not in {None, magic}:
            raise ContainerError(f"the archive changes its form from {self._form!r} to {magic!r}")
        self._form = magic

    def _name(self, name_size: int) -> str:
        if not 2 <= name_size <= MAX_NAME_BYTES:
            raise ContainerError(f"a name of {name_size} bytes in the archive; allowed are 2 to {MAX_NAME_BYTES}, with the NUL")
        raw = self._exactly(name_size, "a name")
        self._skip_padding(-(_HEADER_BYTES + name_size) % 4, "a name")
        if raw[-1:] != b"\x00" or b"\x00" in raw[:-1]:
            raise ContainerError(f"a name in the archive does not end with its only NUL: {raw[:80]!r}")
        text = raw[:-1].decode("latin-1")
        return text if text == _TRAILER else check_member_name(text)

    def _check_entry(self, name: str, mode: int, size: int) -> None:
        if not stat.S_ISREG(mode):
            raise ContainerError(f"member {name!r} has the mode {mode:o}; only regular files may be in a bundle")
        if size > self._limits.member_bytes:
            raise LimitError(f"member {name!r} is {size} bytes long; at most {self._limits.member_bytes} are allowed")
        if name in self._names:
            raise ContainerError(f"member {name!r} is in the archive twice")
        if len(self._names) >= self._limits.members:
            raise LimitError(f"the archive holds more than {self._limits.members} members")
        self._names.add(name)

    def _check_fill(self) -> None:
        """After the trailer: zeros up to the end of the last block."""
        filled = 0
        while block := self._stream.read(_BLOCK_BYTES):
            filled += len(block)
            if block.strip(b"\x00") or filled > _MAX_FILL_BYTES:
                raise ContainerError("the archive goes on after its trailer; nothing signed can be there")

    def _skip_padding(self, size: int, what: str) -> None:
        if self._exactly(size, "padding").strip(b"\x00"):
            raise ContainerError(f"the padding after {what!r} in the archive is not zero")

    def _exactly(self, size: int, what: str) -> bytes:
        """Small fixed pieces only: `size` is bounded by the format."""
        parts = bytearray()
        while len(parts) < size:
            part = self._stream.read(size - len(parts))
            if not part:
                raise ContainerError(f"the archive ends in the middle of {what} at byte {self._position}; fetch it again")
            parts += part
            self._position += len(part)
        return bytes(parts)


def entry_head(form: Form, *, number: int, name: str, size: int, check: int = 0) -> bytes:
    """Header, name and padding of one entry, with the values that SWUpdate is known to accept; `number` counts from 1."""
    check_member_name(name)
    if size > MAX_MEMBER_BYTES:
        raise LimitError(f"member {name!r} is {size} bytes long; the format ends at {MAX_MEMBER_BYTES}, deliver it as a delta")
    return _head(form, name, ino=number, mode=_REGULAR_MODE, size=size, check=check)


def entry_tail(size: int) -> bytes:
    """The padding after `size` bytes of data."""
    return bytes(-size % 4)


def trailer(form: Form, position: int) -> bytes:
    """The end of an archive of which `position` bytes are written, filled up to a whole block."""
    head = _head(form, _TRAILER, ino=0, mode=0, size=0, check=0)
    return head + bytes(-(position + len(head)) % _BLOCK_BYTES)


def _head(form: Form, name: str, *, ino: int, mode: int, size: int, check: int) -> bytes:
    encoded = name.encode("ascii") + b"\x00"
    fields = (ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(encoded), check)
    head = form.value + "".join(f"{field:08x}" for field in fields).encode("ascii") + encoded
    return head + bytes(-len(head) % 4)
