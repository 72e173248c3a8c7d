"""Reads a whole .zck from its first byte to its last: header, then every chunk, each verified before it is given out."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from update.chunks.zchunk import LEAD_BYTES, Chunk, ChunkDecoder, HeaderIndex, header_length, parse_header
from update.errors import ChunkError


def read_header(file: BinaryIO) -> HeaderIndex:
    """The header at the file's position, leaving it at the first byte of the body; `ChunkError`, `LimitError`."""
    first = file.read(LEAD_BYTES)
    length = header_length(first)
    return parse_header(first[:length] + _read(file, length - len(first), "the header"))


def unpack(file: BinaryIO) -> Iterator[tuple[Chunk, bytes]]:
    """Every chunk with its bytes of the image, in order; memory for one chunk at a time.

    Errors: `ChunkError` for the first chunk that does not match, a file cut short, or bytes behind its end. A file
    without digests of its chunks' data (no flag 4) is known to be whole only when the iteration has ended.
    """
    index = read_header(file)
    body = index.full_hash.state()
    update = _ignore if index.has_digests else body.update
    decoder = ChunkDecoder(_read_dictionary(file, index, update))
    for chunk in index:
        stored = _read(file, chunk.length, f"chunk {chunk.index}")
        update(stored)
        yield chunk, decoder.decode(stored, chunk)
    if file.read(1):
        raise ChunkError(f"zchunk file: it goes on behind the {index.total_length} bytes that its header describes")
    if not index.has_digests and body.digest()[: index.full_hash.size] != index.data_digest:
        raise ChunkError(f"zchunk file: the body does not match its digest {index.data_digest.hex()}; it is damaged")


def _ignore(_data: bytes) -> None:
    """Leave the body's digest alone: with flag 4 it is zeros."""


def _read_dictionary(file: BinaryIO, index: HeaderIndex, update: Callable[[bytes], object]) -> bytes:
    if index.dictionary is None:
        return b""
    stored = _read(file, index.dictionary.length, "the dictionary")
    update(stored)
    return ChunkDecoder().decode(stored, index.dictionary)


def _read(file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size) if size > 0 else b""
    if len(data) < size:
        raise ChunkError(f"zchunk file: cut short in {what}: {len(data)} of {size} bytes are there")
    return data
