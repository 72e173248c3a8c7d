"""A partly filled `.zck`: a sparse file of the full size and a durable bitmap of the chunks that are in it.

Rules:

1. A chunk is taken only if its compressed digest matches the verified header (`put`).
2. The bitmap on disk never claims what is not there: data is synced before the bitmap that names it is written
   (`commit`). A chunk that is in the file but not yet in the bitmap is fetched again after a power cut, no more.
3. What an earlier process wrote is believed only after its digest was checked once more, at its first use (`holds`).
4. The bitmap is bound to the header it belongs to and carries a checksum; one that does not fit counts for nothing.

Bitmap file, version 1: magic `FRMAP`, one byte format version, SHA-256 of the header, one bit per chunk (least significant
first), SHA-256 of all that.
"""

import hashlib
from pathlib import Path
from threading import Lock
from typing import Self

from update.chunks.fields import hash_of_length
from update.chunks.zchunk import Chunk
from update.durable import Disk, DurableFile
from update.errors import ChunkError, StoreError, UnsupportedError
from update.trust.verified import VerifiedChunkIndex

_MAGIC = b"FRMAP\x01"
_DIGEST_BYTES = 32


class SparseFile:
    """The chunks of one `.zck` at hand. Used from one thread, but for `commit`, which may run beside it in another."""

    def __init__(self, index: VerifiedChunkIndex, file: DurableFile, bitmap: Path, disk: Disk, held: bytearray) -> None:
        self.index = index.header
        self._sha256 = index.sha256
        self._file = file
        self._bitmap = bitmap
        self._disk = disk
        self._held = held  # in the file
        self._proved = bytearray(len(held))  # digest seen by this process
        self._dirty = False
        self._committing = Lock()  # a cancelled task leaves its commit running in a thread

    @classmethod
    def open(cls, disk: Disk, path: Path, index: VerifiedChunkIndex) -> Self:
        """Open or create `path` and `path` + `.map`. Errors: `StoreError`, `NoSpaceError`, `UnsupportedError`."""
        if index.header.dictionary is not None:
            raise UnsupportedError(f"{index.source}: a .zck with a dictionary cannot be relayed chunk by chunk; build it without")
        bitmap = path.with_name(path.name + ".map")
        held = _read_bitmap(bitmap, index)
        fits = path.is_file() and path.stat().st_size == index.header.total_length
        if held is None or not fits:
            disk.remove(bitmap)
            _create(disk, path, index)
            held = bytearray((len(index.header) + 7) // 8)
        return cls(index, disk.open(path), bitmap, disk, held)

    @property
    def path(self) -> Path:
        """The sparse file itself."""
        return self._file.path

    @property
    def complete(self) -> bool:
        """Whether every chunk is in the file."""
        return self.count() == len(self.index)

    def count(self) -> int:
        """Chunks in the file."""
        return int.from_bytes(self._held, "little").bit_count()

    def holds(self, number: int) -> bool:
        """Whether chunk `number` is at hand and good; at its first use its digest is read again (rule 3)."""
        if not _bit(self._held, number):
            return False
        if _bit(self._proved, number):
            return True
        chunk = self.index[number]
        good = _matches(self._file.read_at(chunk.start, chunk.length), chunk)
        _set(self._proved if good else self._held, number, value=good)
        self._dirty = self._dirty or not good
        return good

    def put(self, number: int, stored: bytes) -> None:
        """Write one chunk; `ChunkError` if it is not what the header says, `NoSpaceError` if the disk is full."""
        chunk = self.index[number]
        if not _matches(stored, chunk):
            raise ChunkError(
                f"chunk {number} of {self.path.name}: {len(stored)} bytes received do not match digest "
                f"{chunk.compressed_digest.hex()}; another upstream may have it"
            )
        self._file.write_at(chunk.start, stored)
        _set(self._held, number, value=True)
        _set(self._proved, number, value=True)
        self._dirty = True

    def commit(self) -> None:
        """Make what was put durable: data first, then the bitmap that names it (rule 2)."""
        with self._committing:
            if self._dirty:
                self._dirty = False
                self._write_bitmap()

    def _write_bitmap(self) -> None:
        body = _MAGIC + bytes.fromhex(self._sha256) + bytes(self._held)  # what is claimed now was written before now
        try:
            self._file.sync()
            self._disk.write_file(self._bitmap, body + hashlib.sha256(body).digest())
        except StoreError:
            self._dirty = True
            raise

    def remove_bitmap(self) -> None:
        """Forget the bitmap: the file was published as a whole."""
        self._disk.remove(self._bitmap)

    def close(self) -> None:
        """Close the file; what was not committed is fetched again after a restart."""
        self._file.close()


def _create(disk: Disk, path: Path, index: VerifiedChunkIndex) -> None:
    """A file of the full size that holds the header only; it needs no sync, since without a bitmap it counts for nothing."""
    with disk.open(path, fresh=True) as file:
        file.write_at(0, index.header.raw)
        file.truncate(index.header.total_length)


def _read_bitmap(path: Path, index: VerifiedChunkIndex) -> bytearray | None:
    """The bits, or None if the file is absent, damaged, or of another header."""
    size = (len(index.header) + 7) // 8
    expected = len(_MAGIC) + 2 * _DIGEST_BYTES + size
    if not path.is_file() or path.stat().st_size != expected:
        return None
    content = path.read_bytes()
    body, checksum = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    belongs = body.startswith(_MAGIC + bytes.fromhex(index.sha256))
    return bytearray(body[-size:] if size else b"") if belongs and hashlib.sha256(body).digest() == checksum else None


def _matches(stored: bytes, chunk: Chunk) -> bool:
    return len(stored) == chunk.length and hash_of_length(chunk.compressed_digest).digest(stored) == chunk.compressed_digest


def _bit(bits: bytearray, number: int) -> bool:
    return bool(bits[number >> 3] & 1 << (number & 7))


def _set(bits: bytearray, number: int, *, value: bool) -> None:
    if value:
        bits[number >> 3] |= 1 << (number & 7)
    else:
        bits[number >> 3] &= ~(1 << (number & 7))
