"""The control block of one window of a pair patch: which regions of the old image help, and what the window is made of.

Rules:

1. Integers are little-endian base 128 with the upper bit set on all bytes but the last, at most 9 bytes.
2. First the count of regions, and offset and length of each in the old image: together the dictionary, in this order.
3. Then pieces until the end: `length * 4 + kind`, and for a copy its offset in the old image. Kinds: 0 literal, 1 copy,
   2 zeros. No piece is empty, so that a patch is finite.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from update.chunks.ranges import Range
from update.errors import ChunkError, LimitError

MAX_CONTROL_BYTES: Final = 1 << 18
MAX_PIECES: Final = 12_000  # that a writer puts into one window: they and the regions fit into the limit
MAX_REGIONS: Final = 2_000
_MAX_INTEGER_BYTES: Final = 9
_KIND_BITS: Final = 2


class Kind(IntEnum):
    """Where the bytes of a piece come from."""

    LITERAL = 0
    COPY = 1
    ZERO = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes of the new image; `offset` is a copy's place in the old one."""

    kind: Kind
    length: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """What one window needs and what it is made of, in order."""

    regions: tuple[Range, ...]
    pieces: tuple[Piece, ...]

    @property
    def dictionary_bytes(self) -> int:
        """Size of all regions."""
        return sum(region.length for region in self.regions)

    @property
    def literal_bytes(self) -> int:
        """Size of all literal pieces."""
        return sum(piece.length for piece in self.pieces if piece.kind is Kind.LITERAL)

    @property
    def size(self) -> int:
        """Size of the window in the new image."""
        return sum(piece.length for piece in self.pieces)


def write_control(regions: Iterable[Range], pieces: Iterable[Piece]) -> bytes:
    """The control block."""
    held = tuple(regions)
    numbers = [len(held), *(number for region in held for number in (region.start, region.length))]
    for piece in pieces:
        numbers.append(piece.length << _KIND_BITS | piece.kind)
        numbers += [piece.offset] if piece.kind is Kind.COPY else []
    return b"".join(map(_encoded, numbers))


def read_control(data: bytes, *, old_size: int) -> Control:
    """Read a control block; `ChunkError` for one that is malformed or leads out of the old image, `LimitError`."""
    if len(data) > MAX_CONTROL_BYTES:
        raise LimitError(f"patch: a control block of {len(data)} bytes, the limit is {MAX_CONTROL_BYTES}")
    count, at = _number(data, 0)
    if count > MAX_REGIONS:
        raise LimitError(f"patch: a window with {count} regions, the limit is {MAX_REGIONS}")
    regions, pieces = [], []
    for _ in range(count):
        start, at = _number(data, at)
        length, at = _number(data, at)
        regions.append(Range(start, _inside(start, length, old_size)))
    while at < len(data):
        head, at = _number(data, at)
        length, kind, offset = head >> _KIND_BITS, _kind(head), 0
        if kind is Kind.COPY:
            offset, at = _number(data, at)
            _inside(offset, length, old_size)
        if not length:
            raise ChunkError(f"patch: an empty piece before byte {at} of a control block")
        pieces.append(Piece(kind, length, offset))
    if not pieces:
        raise ChunkError("patch: a window without a piece")
    return Control(tuple(regions), tuple(pieces))


def _kind(head: int) -> Kind:
    number = head & (1 << _KIND_BITS) - 1
    if number > Kind.ZERO:
        raise ChunkError(f"patch: a piece of kind {number}, known are 0 to {Kind.ZERO:d}")
    return Kind(number)


def _inside(start: int, length: int, old_size: int) -> int:
    if not length:
        raise ChunkError(f"patch: an empty region or copy at {start} of the old image")
    if start + length > old_size:
        raise ChunkError(f"patch: {length} bytes at {start} of an old image of {old_size}: it was made for another one")
    return length


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(at, min(at + _MAX_INTEGER_BYTES, len(data))):
        value |= (data[place] & 0x7F) << 7 * (place - at)
        if data[place] < 0x80:
            return value, place + 1
    raise ChunkError(f"patch: the integer at byte {at} of a control block does not end")
