"""Makes librsync deltas: what of a new file is at hand in a base that only its signature describes.

Rules:

1. A place of the new file whose window has the weak *and* the strong sum of a block is copied from there. Of several
   equal blocks the one behind the copy before is taken, so that one command copies as much as possible; it is looked
   at before anything is searched, so what has not changed costs one hash.
2. The base's size is not in its signature: its last, short block is looked for as every possible end of the new file.
3. Everything else is literal, in commands of at most 64 KiB. Memory: the signature and one segment of the new file.
"""

import struct
from bisect import bisect_left
from typing import Final

from update.chunks.chunker import Read
from update.chunks.rabin_karp import MULTIPLIER, MakeSums, best_sums
from update.chunks.rdiff import COPY, DELTA_MAGIC, END, LITERAL, MAX_SHORT_LITERAL
from update.chunks.rdiff_signature import Signature, Write, strong_sum
from update.errors import CorruptError

_POSITIONS: Final = 1 << 18  # searched at once
_LITERAL_BYTES: Final = 1 << 16
_STRONG_ENOUGH: Final = 16  # bytes of a strong sum that need no weak one beside them
_WORD: Final = 0xFFFFFFFF


def write_delta(signature: Signature, read: Read, size: int, write: Write, *, make_sums: MakeSums | None = None) -> None:
    """Write the delta from the base of `signature` to a file of `size` bytes; `CorruptError` if that ends early."""
    commands = _Commands(write)
    matcher = _Matcher(signature, commands)
    sums = (make_sums or best_sums())(signature.block_bytes, signature.weak_sums(), _POSITIONS)
    for start in range(0, size, _POSITIONS):
        wanted = min(_POSITIONS + signature.block_bytes - 1, size - start)
        data = read(start, wanted)
        if len(data) != wanted:
            raise CorruptError(f"the new file ended at byte {start + len(data)} of {size}: it was changed while being read")
        at = matcher.follow(start, data)
        positions, weak = sums.find(data[at:])
        found = [(at + position, value) for position, value in zip(positions, weak, strict=True)]
        matcher.take(start, data, found, last=start + wanted == size)
        if start + wanted == size:
            break
    commands.end()


class _Commands:
    """Writes commands, joining copies that follow each other and literals that do."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._literal = bytearray()
        self._from, self._length = 0, 0
        write(DELTA_MAGIC)

    @property
    def next_position(self) -> int:
        """Where in the base the last copy ended."""
        return self._from + self._length

    def copy(self, position: int, length: int) -> None:
        """Copy from the base."""
        self._flush_literal()
        if self._length and position == self.next_position:
            self._length += length
            return
        self._flush_copy()
        self._from, self._length = position, length

    def literal(self, data: bytes | memoryview) -> None:
        """Add bytes of the new file."""
        if not data:
            return
        self._flush_copy()
        self._literal += data
        while len(self._literal) >= _LITERAL_BYTES:
            self._put_literal(bytes(self._literal[:_LITERAL_BYTES]))
            del self._literal[:_LITERAL_BYTES]

    def end(self) -> None:
        """Write what is held, and the end."""
        self._flush_literal()
        self._flush_copy()
        self._write(bytes([END]))

    def _flush_literal(self) -> None:
        if self._literal:
            self._put_literal(bytes(self._literal))
            self._literal.clear()

    def _put_literal(self, data: bytes) -> None:
        if len(data) <= MAX_SHORT_LITERAL:
            self._write(bytes([len(data)]) + data)
            return
        width, field = _field(len(data))
        self._write(bytes([LITERAL + width]) + field + data)

    def _flush_copy(self) -> None:
        if self._length:
            position_width, position = _field(self._from)
            length_width, length = _field(self._length)
            self._write(bytes([COPY + 4 * position_width + length_width]) + position + length)
            self._from, self._length = self.next_position, 0


def _field(value: int) -> tuple[int, bytes]:
    """The number of the narrowest width that holds `value`, and `value` in it."""
    width = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value < 1 << 32 else 3
    return width, struct.pack(f">{'BHIQ'[width]}", value)


class _Matcher:
    """Decides, window by window, what is copied; `_done` is the first byte of the new file not yet in a command."""

    def __init__(self, signature: Signature, commands: _Commands) -> None:
        self._signature = signature
        self._commands = commands
        self._blocks: dict[bytes, int] = {}
        for number in range(len(signature)):
            self._blocks.setdefault(signature.entry(number), number)
        self._done = 0

    def follow(self, start: int, data: bytes) -> int:
        """Copy while block follows block as in the base, without a search; where in `data` that ends."""
        size, view, at = self._signature.block_bytes, memoryview(data), max(self._done - start, 0)
        while self._signature.strong_bytes >= _STRONG_ENOUGH and at + size <= len(data):
            number = self._commands.next_position // size  # whole blocks were copied, as only the end of a file takes a short one
            strong = self._signature.entry(number)[4:]
            if strong != strong_sum(view[at : at + size], self._signature.strong_bytes):
                break
            self._copy(number, size)
            at += size
        return at

    def take(self, start: int, data: bytes, found: list[tuple[int, int]], *, last: bool) -> None:
        """Handle the windows that begin in the `_POSITIONS` bytes from `start`; with `last`, all of `data`."""
        size, view, at = self._signature.block_bytes, memoryview(data), 0
        while (at := bisect_left(found, self._done - start, lo=at, key=lambda place: place[0])) < len(found):
            position, weak = found[at]
            block = self._block_of(weak, view[position : position + size])
            if block is None:
                at += 1
                self._literal(start, view, position + 1)
            else:
                self._literal(start, view, position)
                self._copy(block, size)
        if last:
            self._take_end(start, view)
        self._literal(start, view, len(data) if last else min(_POSITIONS, len(data)))

    def _literal(self, start: int, view: memoryview, end: int) -> None:
        """All bytes up to `end`, a place in `view`, are literal."""
        self._commands.literal(view[max(self._done - start, 0) : max(end, 0)])
        self._done = max(self._done, start + end)

    def _copy(self, block: int, length: int) -> None:
        self._commands.copy(block * self._signature.block_bytes, length)
        self._done += length

    def _block_of(self, weak: int, data: memoryview) -> int | None:
        entry = weak.to_bytes(4, "big") + strong_sum(data, self._signature.strong_bytes)
        following = self._commands.next_position // self._signature.block_bytes
        if self._signature.entry(following) == entry:
            return following
        return self._blocks.get(entry)

    def _take_end(self, start: int, view: memoryview) -> None:
        """Rule 2: ends of the file that are shorter than a block, from the shortest on."""
        number = len(self._signature) - 1
        entry = self._signature.entry(number) if number >= 0 else b""
        left = len(view) - max(self._done - start, 0)
        total, factor = 0, 1
        for length in range(1, min(left, self._signature.block_bytes - 1) + 1):
            total = (total + view[-length] * factor) & _WORD
            factor = factor * MULTIPLIER & _WORD
            weak = ((total + factor) & _WORD).to_bytes(4, "big")
            if entry.startswith(weak) and entry == weak + strong_sum(view[-length:], self._signature.strong_bytes):
                self._literal(start, view, len(view) - length)
                self._copy(number, length)
                return
