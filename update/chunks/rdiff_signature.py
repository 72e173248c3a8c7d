"""librsync's signature file: the sums of every block of a base, from which a delta is made without the base.

Rules, as `rdiff` 2.3.2 writes by default (all integers big-endian):

1. Magic 0x72730147 (RabinKarp, BLAKE2b of 256 bits), block length, strong length, each 4 bytes; then for every block its
   weak sum (4 bytes) and the first `strong length` bytes of its strong one. The last block may be short.
2. The block length is the largest multiple of 128 below the square root of the base's size, and at least 256.
3. The size of the base is not in the file. Other magics (MD4, the older rolling sum) are refused by name.

Limits are checked before anything is kept: a signature is at most 16 MiB, a block at most 1 MiB.
"""

import hashlib
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from typing import Final, Protocol

from update.chunks.chunker import Read
from update.chunks.rabin_karp import MakeSums, best_sums, weak_sum
from update.errors import ChunkError, CorruptError, LimitError, UnsupportedError

SIGNATURE_MAGIC: Final = 0x72730147
MAX_SIGNATURE_BYTES: Final = 16 << 20
MAX_BLOCK_BYTES: Final = 1 << 20
STRONG_BYTES: Final = 32
_OTHER_MAGICS: Final = {0x72730136: "rollsum and MD4", 0x72730137: "rollsum and BLAKE2", 0x72730146: "RabinKarp and MD4"}
_HEAD: Final = struct.Struct(">III")
_MIN_BLOCK_BYTES: Final = 256
_READ_BYTES: Final = 1 << 20

Write = Callable[[bytes], object]
"""Takes the next bytes of what is being made."""


class Stream(Protocol):
    """Bytes in order: `read(size)` gives up to `size` bytes, none at the end."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """What is known of a base. `entries` holds weak and strong sum of each block, as in the file."""

    block_bytes: int
    strong_bytes: int
    entries: bytes = field(repr=False)

    def __len__(self) -> int:
        return len(self.entries) // self.entry_bytes

    @property
    def entry_bytes(self) -> int:
        """Size of one entry."""
        return 4 + self.strong_bytes

    def entry(self, number: int) -> bytes:
        """Entry of one block; empty beyond the last."""
        return self.entries[number * self.entry_bytes : (number + 1) * self.entry_bytes]

    def weak_sums(self) -> "array[int]":
        """The weak sum of every block."""
        return array("I", (word for (word,) in struct.iter_unpack(f">I{self.strong_bytes}x", self.entries)))


def default_block_bytes(size: int) -> int:
    """What `rdiff` chooses for a base of `size` bytes (rule 2)."""
    return max(_MIN_BLOCK_BYTES, isqrt(size) & ~127)


def strong_sum(data: bytes | memoryview, strong_bytes: int) -> bytes:
    """The strong sum as the entry of a block holds it."""
    return hashlib.blake2b(data, digest_size=STRONG_BYTES).digest()[:strong_bytes]


def write_signature(
    read: Read,
    size: int,
    write: Write,
    *,
    block_bytes: int = 0,
    strong_bytes: int = STRONG_BYTES,
    make_sums: MakeSums | None = None,
) -> None:
    """Write the signature of a base of `size` bytes; `block_bytes` 0 takes what `rdiff` would.

    Errors: `LimitError` for lengths that no reader takes, `CorruptError` if the base ends early.
    """
    block_bytes = block_bytes or default_block_bytes(size)
    _check_lengths(block_bytes, strong_bytes)
    _check_size(-(-size // block_bytes) * (4 + strong_bytes))
    sums = (make_sums or best_sums())(block_bytes, (), 1)
    write(_HEAD.pack(SIGNATURE_MAGIC, block_bytes, strong_bytes))
    step = max(_READ_BYTES // block_bytes, 1) * block_bytes
    for offset in range(0, size, step):
        data = read(offset, min(step, size - offset))
        if len(data) != min(step, size - offset):
            raise CorruptError(f"the base ended at byte {offset + len(data)} of {size}: it was changed while being read")
        weak, view = sums.of_blocks(data), memoryview(data)
        if len(data) % block_bytes:
            weak.append(weak_sum(view[len(weak) * block_bytes :]))
        blocks = (view[at : at + block_bytes] for at in range(0, len(data), block_bytes))
        write(
            b"".join(word.to_bytes(4, "big") + strong_sum(block, strong_bytes) for word, block in zip(weak, blocks, strict=True))
        )


def read_signature(stream: Stream) -> Signature:
    """Read a signature to its end. Errors: `ChunkError`, `LimitError`, `UnsupportedError` for other sums."""
    head = _read_up_to(stream, _HEAD.size)
    if len(head) < _HEAD.size:
        raise ChunkError(f"signature: cut short in its head: {len(head)} of {_HEAD.size} bytes are there")
    magic, block_bytes, strong_bytes = _HEAD.unpack(head)
    if magic in _OTHER_MAGICS:
        raise UnsupportedError(f"signature of {_OTHER_MAGICS[magic]}: make it with rdiff's defaults (RabinKarp and BLAKE2)")
    if magic != SIGNATURE_MAGIC:
        raise ChunkError(f"not a signature: it begins {head[:4].hex()}, not {SIGNATURE_MAGIC:08x}")
    _check_lengths(block_bytes, strong_bytes)
    entries = _read_up_to(stream, MAX_SIGNATURE_BYTES + 1)
    _check_size(len(entries))
    if len(entries) % (4 + strong_bytes):
        raise ChunkError(f"signature: {len(entries)} bytes of sums are no whole number of {4 + strong_bytes}; it is cut short")
    return Signature(block_bytes, strong_bytes, entries)


def _check_lengths(block_bytes: int, strong_bytes: int) -> None:
    if not 1 <= block_bytes <= MAX_BLOCK_BYTES:
        raise LimitError(f"signature: blocks of {block_bytes} bytes, allowed are 1 to {MAX_BLOCK_BYTES}")
    if not 1 <= strong_bytes <= STRONG_BYTES:
        raise LimitError(f"signature: strong sums of {strong_bytes} bytes, allowed are 1 to {STRONG_BYTES}")


def _check_size(size: int) -> None:
    if size > MAX_SIGNATURE_BYTES:
        raise LimitError(f"signature: {size} bytes of sums or more, the limit is {MAX_SIGNATURE_BYTES}; take longer blocks")


def _read_up_to(stream: Stream, size: int) -> bytes:
    parts = []
    while size > 0 and (part := stream.read(min(size, _READ_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
