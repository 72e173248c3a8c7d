r"""zchunk files: the header as a compact index of chunks, and the verified decoding of one chunk (zchunk_format.txt, 1.2.3).

Rules, as libzck keeps them:

1. Header = lead (magic, hash type, size, header digest), preface (data digest, flags, compression), index, signatures
   (always none). The header digest covers everything but itself, hashed as if a detached header began `\0ZCK1`.
2. Entry 0 of the index is the dictionary and always present; without one its digests and lengths are zero.
3. Bodies follow each other from the end of the header, so a chunk's place is the sum of the lengths before it.
4. Flag 4 adds a digest of each uncompressed chunk; the data digest is then zeros and never checked. Flag 1 (streams)
   and unknown flags are refused, as are signatures, unknown hashes and bytes behind the end.

Trust comes from outside: the SHA-256 of the header is signed. Limits are checked before anything is allocated.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import zstandard

from update.chunks.fields import MAX_INTEGER_BYTES, Compression, HashType, hash_of_length, hash_type, read_integer
from update.errors import ChunkError, LimitError

MAGIC: Final = b"\0ZCK1"
DETACHED_MAGIC: Final = b"\0ZHR1"
LEAD_BYTES: Final = len(MAGIC) + 2 * MAX_INTEGER_BYTES  # enough of a file for `header_length`
MAX_HEADER_BYTES: Final = 64 << 20
MAX_CHUNK_BYTES: Final = 10 << 20  # libzck's own maximum, for chunks cut by hand
MAX_STORED_BYTES: Final = MAX_CHUNK_BYTES + (MAX_CHUNK_BYTES >> 8) + 64  # zstd's bound for incompressible data
_MAX_FILE_BYTES: Final = (1 << 63) - 1
_STREAMS, _OPTIONAL_ELEMENTS, _UNCOMPRESSED_DIGESTS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: where it is stored, and what it becomes. All sizes and places are bytes."""

    index: int
    """Its number in the image, from 0; -1 for the dictionary."""
    digest: bytes
    """Of the uncompressed data; empty in a file without flag 4."""
    compressed_digest: bytes
    """Of the stored bytes."""
    start: int
    """Its first byte in the .zck file, header included."""
    length: int
    """Stored bytes."""
    offset: int
    """Its first byte in the image."""
    size: int
    """Bytes in the image."""
    compression: Compression = Compression.ZSTD


@dataclass(frozen=True, slots=True)
class _Preface:
    """What the header says once, before its index."""

    full_hash: HashType
    chunk_hash: HashType
    compression: Compression
    has_digests: bool
    data_digest: bytes


class HeaderIndex:
    """The verified header of a .zck: a sequence of `Chunk`, made on access from the raw bytes and three arrays.

    Immutable; about 90 bytes per chunk. Keep `raw` to have it again: `parse_header(raw)`.
    """

    __slots__ = ("_entries", "_offsets", "_preface", "_starts", "dictionary", "digest", "header_size", "raw")

    def __init__(self, raw: bytes, digest: bytes, preface: _Preface, entries: "_Entries") -> None:
        self.raw = raw
        self.header_size = len(raw)
        self.digest = digest
        self.dictionary = entries.dictionary
        self._preface = preface
        self._entries, self._starts, self._offsets = entries.positions, entries.starts, entries.offsets

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Chunk:
        if not 0 <= index < len(self._entries):
            raise IndexError(f"chunk {index} of {len(self._entries)}")
        return Chunk(
            index=index,
            digest=self.digest_of(index),
            compressed_digest=self.stored_digest_of(index),
            start=self._starts[index],
            length=self._starts[index + 1] - self._starts[index],
            offset=self._offsets[index],
            size=self.size_of(index),
            compression=self._preface.compression,
        )

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    def size_of(self, index: int) -> int:
        """`self[index].size` without making the chunk."""
        return self._offsets[index + 1] - self._offsets[index]

    def digest_of(self, index: int) -> bytes:
        """`self[index].digest` without making the chunk."""
        position, size = self._entries[index], self._preface.chunk_hash.size
        return self.raw[position + size : position + 2 * size] if self._preface.has_digests else b""

    def stored_digest_of(self, index: int) -> bytes:
        """`self[index].compressed_digest` without making the chunk."""
        position = self._entries[index]
        return self.raw[position : position + self._preface.chunk_hash.size]

    @property
    def total_length(self) -> int:
        """Bytes of the whole .zck file."""
        return self._starts[-1]

    @property
    def image_size(self) -> int:
        """Bytes of the image."""
        return self._offsets[-1]

    @property
    def full_hash(self) -> HashType:
        """The hash of header and data digest."""
        return self._preface.full_hash

    @property
    def chunk_hash(self) -> HashType:
        """The hash of every chunk digest."""
        return self._preface.chunk_hash

    @property
    def compression(self) -> Compression:
        """How every chunk is stored."""
        return self._preface.compression

    @property
    def has_digests(self) -> bool:
        """Whether chunks carry digests of their uncompressed data (flag 4), as deltas against an image need."""
        return self._preface.has_digests

    @property
    def data_digest(self) -> bytes:
        """Of the whole body; zeros with `has_digests`."""
        return self._preface.data_digest

    def covering(self, start: int, length: int) -> range:
        """Numbers of the chunks that hold any of `length` bytes of the file from `start`; header and dictionary are none."""
        if length <= 0 or start >= self.total_length or start + length <= self._starts[0]:
            return range(0)
        first = max(bisect_right(self._starts, start) - 1, 0)
        return range(first, min(bisect_left(self._starts, start + length), len(self)))

    def holding(self, offset: int) -> int:
        """Number of the chunk that holds byte `offset` of the image, which must be in it."""
        return bisect_right(self._offsets, offset) - 1


@dataclass(slots=True)
class _Entries:
    """The index while it is read: positions in the header, then one more start and offset than chunks."""

    positions: "array[int]"
    starts: "array[int]"
    offsets: "array[int]"
    dictionary: Chunk | None


def header_length(first: bytes) -> int:
    """Length of the whole header in bytes, from the first `LEAD_BYTES` bytes of a file.

    Errors: `ChunkError` if it is no zchunk file, `LimitError` above `MAX_HEADER_BYTES`.
    """
    _, _, length = _read_lead(first)
    return length


def _read_lead(data: bytes) -> tuple[HashType, int, int]:
    """Full-hash type, position of the header digest, length of the whole header."""
    if data[: len(MAGIC)] not in {MAGIC, DETACHED_MAGIC}:
        raise ChunkError(f"not a zchunk file: it begins {data[: len(MAGIC)].hex() or 'with nothing'}, not {MAGIC.hex()}")
    number, position = read_integer(data, len(MAGIC), len(data), "the full hash type")
    kind = hash_type(number, "the full hash type")
    rest, position = read_integer(data, position, len(data), "the header size")
    length = position + kind.size + rest
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"zchunk header of {length} bytes, the limit is {MAX_HEADER_BYTES}")
    return kind, position, length


def parse_header(data: bytes) -> HeaderIndex:
    """Read exactly one header and verify its own digest; `ChunkError` or `LimitError` names what is wrong.

    The digest guards against damage only: whoever relies on the index verifies the SHA-256 of `data` first.
    """
    kind, position, length = _read_lead(data)
    if len(data) != length:
        raise ChunkError(f"zchunk header: it says {length} bytes, there are {len(data)}; read exactly header_length() bytes")
    digest, position = _take(data, position, kind.size, length)
    if kind.digest(MAGIC, data[len(MAGIC) : position - kind.size], data[position:]) != digest:
        raise ChunkError(f"zchunk header: its content does not match its own digest {digest.hex()}; it is damaged")
    data_digest, position = _take(data, position, kind.size, length)
    has_digests, compression, position = _read_settings(data, position)
    index_size, position = read_integer(data, position, length, "the index size")
    end = position + index_size
    if end > length:
        raise ChunkError(f"zchunk header: the index of {index_size} bytes ends at byte {end}, the header at byte {length}")
    number, position = read_integer(data, position, end, "the chunk hash type")
    preface = _Preface(kind, hash_type(number, "the chunk hash type"), compression, has_digests, data_digest)
    entries = _read_entries(data, position, end, preface)
    _read_signatures(data, end)
    return HeaderIndex(data, digest, preface, entries)


def _take(data: bytes, position: int, size: int, end: int) -> tuple[bytes, int]:
    if position + size > end:
        raise ChunkError(f"zchunk header: {size} bytes from byte {position} run past the end at byte {end}")
    return data[position : position + size], position + size


def _read_settings(data: bytes, position: int) -> tuple[bool, Compression, int]:
    """Flags, compression type and, skipped, the optional elements."""
    end = len(data)
    flags, position = read_integer(data, position, end, "the flags")
    if flags & ~(_OPTIONAL_ELEMENTS | _UNCOMPRESSED_DIGESTS):
        raise ChunkError(f"zchunk header: flags {flags:#x}; 1 (streams) and unknown ones are not supported")
    number, position = read_integer(data, position, end, "the compression type")
    if number not in {*Compression}:
        raise ChunkError(f"zchunk header: compression type {number}; known are 0 (none) and 2 (zstd)")
    if flags & _OPTIONAL_ELEMENTS:
        count, position = read_integer(data, position, end, "the count of optional elements")
        if count > (end - position) // 2:
            raise ChunkError(f"zchunk header: {count} optional elements in {end - position} bytes")
        for _ in range(count):
            _, position = read_integer(data, position, end, "an optional element's id")
            size, position = read_integer(data, position, end, "an optional element's size")
            _, position = _take(data, position, size, end)
    return bool(flags & _UNCOMPRESSED_DIGESTS), Compression(number), position


def _read_entries(data: bytes, position: int, end: int, preface: _Preface) -> _Entries:
    """The index from its chunk count on; the places are sums, so they are checked as they grow."""
    count, position = read_integer(data, position, end, "the chunk count")
    digests_size = preface.chunk_hash.size * (1 + preface.has_digests)
    if not 1 <= count <= (end - position) // (digests_size + 2):
        raise ChunkError(f"zchunk header: {count} chunks (with the dictionary) in an index of {end - position} bytes")
    positions, starts, offsets = array("I"), array("Q"), array("Q")
    start, offset, dictionary = len(data), 0, None
    for number in range(count):
        entry, position = position, position + digests_size
        length, position = read_integer(data, position, end, "a chunk's stored length")
        size, position = read_integer(data, position, end, "a chunk's size")
        _check_sizes(number, length, size, preface.compression)
        if number:
            positions.append(entry)
            starts.append(start)
            offsets.append(offset)
            offset += size
        elif length or size:
            dictionary = _dictionary(data, entry, preface, length, size)
        start += length
        if max(start, offset) > _MAX_FILE_BYTES:
            raise LimitError(f"zchunk header: chunk {number} ends above 2**63 - 1 bytes")
    if position != end:
        raise ChunkError(f"zchunk header: {end - position} bytes behind the last of {count} index entries")
    starts.append(start)
    offsets.append(offset)
    return _Entries(positions, starts, offsets, dictionary)


def _check_sizes(number: int, length: int, size: int, compression: Compression) -> None:
    if length > MAX_STORED_BYTES or size > MAX_CHUNK_BYTES:
        raise LimitError(
            f"zchunk header: chunk {number} has {length} bytes stored, {size} unpacked; the limit is {MAX_CHUNK_BYTES}"
        )
    if compression is Compression.NONE and length != size:
        raise ChunkError(f"zchunk header: chunk {number} is not compressed, but {length} bytes stored are to become {size}")


def _dictionary(data: bytes, entry: int, preface: _Preface, length: int, size: int) -> Chunk:
    """Entry 0, when it is more than a placeholder."""
    width = preface.chunk_hash.size
    digest = data[entry + width : entry + 2 * width] if preface.has_digests else b""
    return Chunk(-1, digest, data[entry : entry + width], len(data), length, 0, size, preface.compression)


def _read_signatures(data: bytes, position: int) -> None:
    count, position = read_integer(data, position, len(data), "the count of signatures")
    if count:
        raise ChunkError(f"zchunk header: {count} signatures; libzck knows none, so they prove nothing")
    if position != len(data):
        raise ChunkError(f"zchunk header: {len(data) - position} bytes behind its end")


class ChunkDecoder:
    """Decodes chunks of one file, each verified before and after; one decoder per thread."""

    def __init__(self, dictionary: bytes = b"") -> None:
        content = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        self._zstd = zstandard.ZstdDecompressor(dict_data=content)

    def decode(self, stored: bytes, chunk: Chunk) -> bytes:
        """The `chunk.size` bytes of the image; `ChunkError` if anything differs from what the index says."""
        if len(stored) != chunk.length or hash_of_length(chunk.compressed_digest).digest(stored) != chunk.compressed_digest:
            raise ChunkError(
                f"chunk {chunk.index}: {len(stored)} stored bytes do not match the {chunk.length} of "
                f"digest {chunk.compressed_digest.hex()}; fetch it again"
            )
        data = stored if chunk.compression is Compression.NONE else self._unpack(stored, chunk)
        if len(data) != chunk.size or (chunk.digest and hash_of_length(chunk.digest).digest(data) != chunk.digest):
            raise ChunkError(
                f"chunk {chunk.index}: unpacked to {len(data)} bytes, not to the {chunk.size} of digest {chunk.digest.hex()}"
            )
        return data

    def _unpack(self, stored: bytes, chunk: Chunk) -> bytes:
        """Unpack one frame. A frame's own content size is checked first: zstandard would allocate it whatever our limit."""
        try:
            announced = zstandard.frame_content_size(stored) if stored else 0
            if announced not in {-1, chunk.size}:
                raise ChunkError(f"chunk {chunk.index}: its frame announces {announced} bytes, the index {chunk.size}")
            if not chunk.size:
                return b""
            return self._zstd.decompress(stored, max_output_size=chunk.size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ChunkError(
                f"chunk {chunk.index}: {len(stored)} stored bytes are no zstd frame of {chunk.size} bytes"
            ) from error
