"""What is in a member once it is unpacked: gzip and zstd as streams that cannot be made to run over.

SWUpdate's `zlib` is the gzip container with exactly one member (RFC 1952); several, or anything behind it, fail there and
are refused here. `zstd` is one or more frames (RFC 8878), with or without content size and checksum. Frames are handed to
the decoder block by block: a block unpacks to at most 128 KiB, so a bomb is noticed after the block that goes too far, and
an end in the middle of a frame is seen, which zstd's own stream readers take for the end of the data.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard

from update.bundle.cpio import Readable
from update.bundle.entries import Compression
from update.errors import CompressionError

MAX_WINDOW_BYTES: Final = 32 << 20
_READ_BYTES = 1 << 17
_GZIP = 31
_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_MAX_BLOCK_BYTES = 1 << 17
_RLE, _RESERVED = 1, 3


class Payload(Protocol):
    """A source of unpacked bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end, and only after everything was found to be right."""
        ...


def unpack(
    source: Readable, compression: Compression, *, name: str, max_bytes: int, announced: int | None = None
) -> "BoundedPayload":
    """The content of `source`: never more than `max_bytes`, and exactly `announced` bytes if that is given.

    Errors while reading: `CompressionError`, its message beginning with `name`.
    """
    return BoundedPayload(_pieces(source, compression, name), name, max_bytes, announced)


def _pieces(source: Readable, compression: Compression, name: str) -> Iterator[bytes]:
    match compression:
        case Compression.NONE:
            return iter(lambda: source.read(_READ_BYTES), b"")
        case Compression.ZLIB:
            return _gunzip(source, name)
        case Compression.ZSTD:
            return _unzstd(source, name)


class BoundedPayload:
    """Pieces as a stream whose length is judged."""

    def __init__(self, pieces: Iterator[bytes], name: str, max_bytes: int, announced: int | None) -> None:
        self._pieces = pieces
        self._name = name
        self._limit = max_bytes if announced is None else min(max_bytes, announced)
        self._announced = announced
        self._total = 0
        self._piece = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                self._check_end()
                return b""
            self._total += len(piece)
            if self._total > self._limit:
                raise CompressionError(f"{self._name} unpacks to more than the {self._limit} bytes that are announced or fit")
            self._piece = memoryview(piece)
        part, self._piece = self._piece[:size], self._piece[size:]
        return bytes(part)

    def _check_end(self) -> None:
        if self._announced is not None and self._total != self._announced:
            raise CompressionError(f"{self._name} unpacks to {self._total} bytes, {self._announced} are announced")


def _gunzip(source: Readable, name: str) -> Iterator[bytes]:
    decoder = zlib.decompressobj(_GZIP)
    try:
        while not decoder.eof:
            data = decoder.unconsumed_tail or source.read(_READ_BYTES)
            if not data:
                raise CompressionError(f"{name} ends in the middle of its gzip data")
            yield decoder.decompress(data, _READ_BYTES)
    except zlib.error as error:
        raise CompressionError(f"{name} is not gzip data: {error}") from error
    if decoder.unused_data or source.read(1):
        raise CompressionError(f"{name} goes on after its gzip data; SWUpdate reads one gzip member only")


def _unzstd(source: Readable, name: str) -> Iterator[bytes]:
    scanner = _Frames(source, name)
    # The bound on the window is a bound on the decoder's memory, whatever a frame asks for.
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        while scanner.next_frame():
            decoder = decompressor.decompressobj()
            for piece in scanner.pieces():
                yield decoder.decompress(piece)
    except zstandard.ZstdError as error:
        raise CompressionError(f"{name} is not zstd data: {error}") from error


class _Frames:
    """Finds the borders of zstd's frames and blocks (RFC 8878, 3.1.1) without decoding them."""

    def __init__(self, source: Readable, name: str) -> None:
        self._source = source
        self._name = name
        self._magic = b""

    def next_frame(self) -> bool:
        """Step to the next frame, over skippable ones; False at the end of the data, of which there must be some."""
        first = not self._magic
        while True:
            self._magic = self._source.read(4)
            if not self._magic and not first:
                return False
            self._magic += self._exactly(4 - len(self._magic))
            number = int.from_bytes(self._magic, "little")
            if number == _MAGIC:
                return True
            if number & ~0xF != _SKIPPABLE:
                raise CompressionError(f"{self._name} is not zstd data: it has {self._magic.hex()} where a frame begins")
            self._skip(int.from_bytes(self._exactly(4), "little"))
            first = False

    def pieces(self) -> Iterator[bytes]:
        """The frame's header, each of its blocks, its checksum."""
        descriptor = self._exactly(1)
        flags = descriptor[0]
        single = flags >> 5 & 1
        size_bytes = (single, 2, 4, 8)[flags >> 6]
        yield self._magic + descriptor + self._exactly(1 - single + (0, 1, 2, 4)[flags & 3] + size_bytes)
        last = False
        while not last:
            head = self._exactly(3)
            number = int.from_bytes(head, "little")
            last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
            if kind == _RESERVED or size > _MAX_BLOCK_BYTES:
                raise CompressionError(f"{self._name} holds a zstd block of kind {kind} and {size} bytes, which cannot be")
            yield head + self._exactly(1 if kind == _RLE else size)
        if flags >> 2 & 1:
            yield self._exactly(4)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._source.read(size - len(parts))
            if not part:
                raise CompressionError(f"{self._name} ends in the middle of a zstd frame")
            parts += part
        return bytes(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._exactly(min(size, _READ_BYTES)))
