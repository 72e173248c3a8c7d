"""Applies librsync deltas, as `rdiff delta` and SWUpdate's `rdiff_image` have them.

Rules (all integers big-endian): magic 0x72730236, then commands by their first byte:

| byte | meaning |
|---|---|
| 0x00 | the end |
| 0x01..0x40 | that many literal bytes follow |
| 0x41..0x44 | literal; its length in the next 1, 2, 4 or 8 bytes |
| 0x45..0x54 | copy from the base: position in 1, 2, 4 or 8 bytes (by fours), then length in 1, 2, 4 or 8 |
| 0x55.. | refused |

**A delta holds no digest of base or result.** The caller verifies the base before, and the result after, against what is
signed. Here every length is checked against what the base has and what the result may still take before anything is
read; commands of no length are refused, so that a delta is finite; memory is one buffer of 64 KiB.
"""

from typing import Final

from update.chunks.chunker import Read
from update.chunks.rdiff_signature import Stream, Write
from update.errors import ChunkError, LimitError, StoreError

DELTA_MAGIC: Final = bytes.fromhex("72730236")
END: Final = 0x00
MAX_SHORT_LITERAL: Final = 0x40
LITERAL: Final = 0x41
COPY: Final = 0x45
_BEHIND_COPY: Final = 0x55
_WIDTHS: Final = (1, 2, 4, 8)
_BUFFER_BYTES: Final = 1 << 16


def apply_delta(delta: Stream, base: Read, base_size: int, write: Write, *, size: int) -> None:
    """Write the result, exactly `size` bytes as the signed description says, from `delta` and the base.

    Errors: `ChunkError` for a malformed delta or one that leads elsewhere, `LimitError` for a result above `size`,
    `StoreError` if the base cannot be read. What was written by then is to be thrown away.
    """
    commands = _Delta(delta)
    if (magic := commands.take(len(DELTA_MAGIC), "its magic")) != DELTA_MAGIC:
        raise ChunkError(f"not a librsync delta: it begins {magic.hex()}, not {DELTA_MAGIC.hex()}")
    done = 0
    while (command := commands.take(1, "a command")[0]) != END:
        if command >= _BEHIND_COPY:
            raise ChunkError(f"delta: command 0x{command:02x} at byte {commands.position - 1} is none of librsync's")
        position = commands.number(_WIDTHS[(command - COPY) // 4], "a position") if command >= COPY else 0
        length = _length(commands, command)
        if length > size - done:
            raise LimitError(f"delta: the result grows to {done + length} bytes, {size} were announced")
        if command >= COPY:
            _copy(base, base_size, position, length, write)
        else:
            commands.literal(length, write)
        done += length
    if done != size:
        raise ChunkError(f"delta: the result has {done} bytes, {size} were announced")
    commands.expect_end()


def _length(commands: "_Delta", command: int) -> int:
    if command <= MAX_SHORT_LITERAL:
        return command
    length = commands.number(_WIDTHS[(command - LITERAL) % 4], "a length")
    if not length:
        raise ChunkError(f"delta: command 0x{command:02x} before byte {commands.position} has no length")
    return length


def _copy(base: Read, base_size: int, position: int, length: int, write: Write) -> None:
    if position + length > base_size:
        raise ChunkError(f"delta: copies up to byte {position + length} of a base of {base_size}: it was made for another base")
    while length:
        data = base(position, min(length, _BUFFER_BYTES))
        if not data:
            raise StoreError(f"the base ended at byte {position}, it had {base_size} bytes: it was changed while being read")
        write(data)
        position, length = position + len(data), length - len(data)


class _Delta:
    """Reads a stream piece by piece, and knows where it is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        """Exactly `size` bytes, a few."""
        data = b""
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self.position += len(data)
        if len(data) < size:
            raise ChunkError(f"delta: cut short at byte {self.position}, in {what}")
        return data

    def number(self, width: int, what: str) -> int:
        """An integer of `width` bytes."""
        return int.from_bytes(self.take(width, what), "big")

    def literal(self, length: int, write: Write) -> None:
        """Pass `length` bytes on."""
        while length:
            data = self._stream.read(min(length, _BUFFER_BYTES))
            if not data:
                raise ChunkError(f"delta: cut short at byte {self.position}, {length} bytes before the end of a literal")
            write(data)
            self.position, length = self.position + len(data), length - len(data)

    def expect_end(self) -> None:
        """Nothing may follow."""
        if self._stream.read(1):
            raise ChunkError(f"delta: it goes on behind its end at byte {self.position}")
