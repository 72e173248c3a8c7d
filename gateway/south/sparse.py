"""A partly filled `.zck`: a sparse file of the full size and a durable bitmap of the chunks that are in it.

Rules:

1. A chunk is taken only if its compressed digest matches the verified header (`write`).
2. The bitmap on disk never claims what is not there: data is synced before the bitmap that names it is written
   (`commit`). What a killed process wrote and did not claim any more is where the file has no holes (lseek(2), SEEK_DATA):
   a rumour, which is proved by reading like rule 3 says, and claimed only then. What a power cut took is fetched again.
3. What an earlier process wrote is believed only after its digest was checked once more, at its first use (`read_back`).
   A chunk that cannot be read counts as missing, like one of other bytes; the header is written anew if it is damaged.
4. The bitmap is bound to the header it belongs to and carries a checksum; one that does not fit counts for nothing.

Bitmap file, version 1: magic `FRMAP`, one byte format version, SHA-256 of the header, one bit per chunk (least significant
first), SHA-256 of all that.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from update.chunks.fields import hash_of_length
from update.chunks.ranges import Range
from update.chunks.zchunk import Chunk, HeaderIndex
from update.durable import Disk, DurableFile
from update.errors import StoreError, UnsupportedError
from update.trust.verified import VerifiedChunkIndex

_MAGIC = b"FRMAP\x01"
_DIGEST_BYTES = 32


class SparseFile:
    """The chunks of one `.zck` at hand.

    What touches the disk (`write`, `read_back`, `commit`) may run in threads, one `commit` at a time; everything else belongs
    to the event loop, above all the bits. Close it when no thread uses it any more.
    """

    def __init__(self, index: VerifiedChunkIndex, file: DurableFile, bitmap: Path | None, disk: Disk, held: bytearray) -> None:
        self.verified = index
        self.index = index.header
        self._file = file
        self._bitmap = bitmap
        self._disk = disk
        self._held = held  # in the file
        self._proved = bytearray(len(held))  # digest seen by this process
        self._rumoured = bytearray(len(held))  # data that nobody claims
        self._dirty = False

    @classmethod
    def open(cls, disk: Disk, path: Path, index: VerifiedChunkIndex) -> Self:
        """Open or create `path` and `path` + `.map`. Errors: `StoreError`, `NoSpaceError`, `UnsupportedError`."""
        _refuse_dictionary(index)
        bitmap = bitmap_of(path)
        held = _read_bitmap(bitmap, index)
        fits = path.is_file() and path.stat().st_size == index.header.total_length
        if held is None or not fits:
            disk.remove(bitmap)
            held = bytearray((len(index.header) + 7) // 8)
        if not fits:
            _create(disk, path, index.header)
        sparse = cls(index, disk.open(path), bitmap, disk, held)
        try:
            sparse._mend_header()
            sparse._listen()
        except StoreError:
            sparse.close()
            raise
        sparse.accept(sparse.read_back([chunk.index for chunk in index.header if not chunk.length]))  # nothing to fetch
        return sparse

    @classmethod
    def in_memory(cls, index: VerifiedChunkIndex) -> Self:
        """A file that is nowhere on disk, and gone with its last descriptor. Errors: `StoreError`, `UnsupportedError`."""
        _refuse_dictionary(index)
        path = Path("memory") / f"{index.sha256}.zck"
        file = DurableFile(path, os.memfd_create(index.sha256, os.MFD_CLOEXEC), lambda _operation: None)
        sparse = cls(index, file, None, Disk(), bytearray((len(index.header) + 7) // 8))
        try:
            file.write_at(0, index.header.raw)
            file.truncate(index.header.total_length)
        except StoreError:
            sparse.close()
            raise
        sparse.accept([chunk.index for chunk in index.header if not chunk.length])
        return sparse

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

    def fileno(self) -> int:
        """The descriptor of the file, to be duplicated by who reads from it."""
        return self._file.fileno()

    def holds(self, number: int) -> bool:
        """Whether chunk `number` is at hand, and its digest was seen by this process."""
        return _bit(self._proved, number)

    def claims(self, number: int) -> bool:
        """Whether chunk `number` seems to be in the file: only reading it tells."""
        return _bit(self._held, number) or _bit(self._rumoured, number)

    def unproved(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that an earlier process seems to have written, and this one has not read yet."""
        return [number for number in numbers if self.claims(number) and not _bit(self._proved, number)]

    def read_back(self, numbers: Sequence[int]) -> list[int]:
        """Those of `numbers` whose bytes in the file are good; to be told to `believe` (rule 3)."""
        return [number for number in numbers if self._is_good(self.index[number])]

    def believe(self, numbers: Sequence[int], good: Iterable[int]) -> None:
        """Note what `read_back` found: `good` are at hand, the rest of `numbers` is missing again."""
        self.accept(proved := frozenset(good))
        for number in proved.symmetric_difference(numbers):
            self._dirty = self._dirty or _bit(self._held, number)
            _set(self._held, number, value=False)
            _set(self._rumoured, number, value=False)
            _set(self._proved, number, value=False)

    def write(self, chunks: Iterable[tuple[int, bytes]]) -> list[int]:
        """Write what matches its digest (number, stored bytes); the numbers written, to be told to `accept`.

        Errors: `NoSpaceError`, `StoreError`; then nothing of it counts.
        """
        written = []
        for number, stored in chunks:
            chunk = self.index[number]
            if _matches(stored, chunk):
                self._file.write_at(chunk.start, stored)
                written.append(number)
        return written

    def accept(self, numbers: Iterable[int]) -> None:
        """Note that these chunks are in the file and good."""
        for number in numbers:
            self._dirty = self._dirty or not _bit(self._held, number)
            _set(self._held, number, value=True)
            _set(self._proved, number, value=True)
            _set(self._rumoured, number, value=False)

    def commit(self) -> None:
        """Make what was accepted durable: data first, then the bitmap that names it (rule 2)."""
        if not self._dirty or self._bitmap is None:
            return
        self._dirty = False
        body = _MAGIC + bytes.fromhex(self.verified.sha256) + bytes(self._held)  # what is claimed now was written before now
        try:
            self._file.sync()
            self._disk.write_file(self._bitmap, body + hashlib.sha256(body).digest())
        except StoreError:
            self._dirty = True
            raise

    def note_use(self) -> None:
        """Have the file's time say that it is in use: what was used longest ago is evicted first."""
        with suppress(OSError):  # only the order of eviction hangs on it
            os.utime(self._file.fileno())

    def remove_bitmap(self) -> None:
        """Forget the bitmap: the file was published as a whole."""
        if self._bitmap is not None:
            self._disk.remove(self._bitmap)

    def close(self) -> None:
        """Close the file; what was not committed is fetched again after a restart."""
        self._file.close()

    def _mend_header(self) -> None:
        """Have the verified header in the file; a mending that is lost is found again at the next start."""
        try:
            intact = self._file.read_at(0, self.index.header_size) == self.index.raw
        except StoreError:
            intact = False
        if not intact:
            self._file.write_at(0, self.index.raw)

    def _listen(self) -> None:
        """Note the chunks that are not claimed and lie where the file has data."""
        for extent in _extents(self.fileno(), self.index.total_length):
            for number in self.index.covering(extent.start, extent.length):
                chunk = self.index[number]
                whole = chunk.start >= extent.start and chunk.start + chunk.length <= extent.end
                _set(self._rumoured, number, value=whole and not _bit(self._held, number))

    def _is_good(self, chunk: Chunk) -> bool:
        try:
            return _matches(self._file.read_at(chunk.start, chunk.length), chunk)
        except StoreError:  # a bad sector: writing it anew may help
            return False


def bitmap_of(path: Path) -> Path:
    """The bitmap beside a sparse file."""
    return path.with_name(path.name + ".map")


def claimed(path: Path, index: VerifiedChunkIndex) -> Callable[[int], bool]:
    """Whether the bitmap beside `path` names a chunk: what was durable a moment ago, read without opening the file.

    Like every claim of an earlier process it is no proof; what has no bytes is always there.
    """
    held = _read_bitmap(bitmap_of(path), index)
    empty = [chunk.index for chunk in index.header if not chunk.length]
    if held is None:
        return frozenset(empty).__contains__
    for number in empty:
        _set(held, number, value=True)
    return lambda number: _bit(held, number)


def remove(disk: Disk, path: Path) -> None:
    """Remove a closed file. Its bitmap goes first: it never claims what is not there."""
    disk.remove(bitmap_of(path))
    disk.remove(path)


def _refuse_dictionary(index: VerifiedChunkIndex) -> None:
    if index.header.dictionary is not None:
        raise UnsupportedError(f"{index.source}: a .zck with a dictionary cannot be relayed chunk by chunk; build it without")


def _create(disk: Disk, path: Path, index: HeaderIndex) -> None:
    """A file of the full size that holds the header only; it needs no sync, since without a bitmap it counts for nothing."""
    with disk.open(path, fresh=True) as file:
        file.write_at(0, index.raw)
        file.truncate(index.total_length)


def _extents(descriptor: int, size: int) -> Iterator[Range]:
    """Where a file has data; a file system that cannot say calls all of it data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        yield Range(start, end - start)


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
