"""Makes .zck files of images: cut as zck cuts, compressed as zck compresses (`zck -u --chunk-hash-type sha256`).

The parameters are libzck's: each chunk one zstd frame of level 9 with the strategy btopt, its size in it, no checksum.
Boundaries and uncompressed digests are those of `zck` bit for bit; compressed bytes differ between versions of libzstd
(`encoder_name` tells which made a file), so deltas match on uncompressed digests.

The header comes first in the file but is known last: the body goes to a second staged file and is copied behind it.
Memory is bounded by the chunks in flight, whatever the size of the image.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Final

import zstandard

from update.chunks.chunker import cut_image, file_reader
from update.chunks.header import HeaderBuilder
from update.chunks.unpack import read_header
from update.chunks.zchunk import HeaderIndex, parse_header
from update.durable import Disk, DurableFile
from update.errors import StoreError

_LEVEL: Final = 9
_CHUNKS_IN_FLIGHT: Final = 8  # per thread
_MAX_WORKERS: Final = 8
_COPY_BYTES: Final = 1 << 20

Progress = Callable[[int, int], None]
"""Called with (bytes of the image done, bytes of the image)."""


def _ignore(_done: int, _total: int) -> None:
    """Report nothing."""


def encoder_name() -> str:
    """What determines the compressed bytes: recorded by whoever publishes, so that a file can be made again."""
    return f"libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, level {_LEVEL}, btopt"


def zck_header(zck: Path) -> bytes:
    """The header of a .zck, verified: the member of a delta bundle. `ChunkError`, `LimitError`."""
    with _opened(zck) as file:
        return read_header(file).raw


def write_zchunk(image: Path, out: Path, disk: Disk, *, progress: Progress = _ignore, workers: int | None = None) -> HeaderIndex:
    """Write `out` from `image`, durably and all or nothing; up to `workers` threads compress (default: one per processor).

    Errors: `StoreError` when either file cannot be read or written, `CorruptError` if the image changes meanwhile.
    """
    staged, body = (out.with_name(f".{out.name}.{part}.tmp") for part in ("whole", "body"))
    try:
        with disk.open(body, fresh=True) as body_file:
            header = _write_body(image, body_file, progress, workers or min(os.cpu_count() or 1, _MAX_WORKERS))
            with disk.open(staged, fresh=True) as file:
                file.write_at(0, header)
                _append(body_file, file, len(header))
                file.sync()
        disk.publish(staged, out)
    finally:
        disk.remove(body)
        disk.remove(staged)
    return parse_header(header)


def _opened(path: Path) -> BinaryIO:
    """Open for reading; also a block device."""
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Compressed:
    """One chunk, ready to be written."""

    stored: bytes
    digest: bytes
    size: int


def _write_body(image: Path, body: DurableFile, progress: Progress, workers: int) -> bytes:
    """Write all chunks, and return the header that describes them."""
    builder, position, done = HeaderBuilder(), 0, 0
    with _opened(image) as file:
        total = file.seek(0, os.SEEK_END)
        for chunk in _compress_all(file.fileno(), total, workers):
            builder.add(
                compressed_digest=hashlib.sha256(chunk.stored).digest(),
                digest=chunk.digest,
                length=len(chunk.stored),
                size=chunk.size,
            )
            body.write_at(position, chunk.stored)
            position += len(chunk.stored)
            done += chunk.size
            progress(done, total)
    return builder.build()


def _compress_all(descriptor: int, size: int, workers: int) -> Iterator[_Compressed]:
    """The chunks of the image in order, compressed by a few threads ahead of the reader."""
    compressors: SimpleQueue[zstandard.ZstdCompressor] = SimpleQueue()
    for _ in range(workers):
        compressors.put(_compressor())

    def compress(data: memoryview) -> _Compressed:
        compressor = compressors.get()
        try:
            return _Compressed(compressor.compress(data), hashlib.sha256(data).digest(), len(data))
        finally:
            compressors.put(compressor)

    ahead: deque[Future[_Compressed]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="compress") as pool:
        for _, data in cut_image(file_reader(descriptor), size, workers=1):
            ahead.append(pool.submit(compress, data))
            if len(ahead) > workers * _CHUNKS_IN_FLIGHT:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _compressor() -> zstandard.ZstdCompressor:
    """Level and strategy are set and the rest is left to the size of each chunk, as in libzck; `from_level` would fix it."""
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=_LEVEL, strategy=zstandard.STRATEGY_BTOPT, write_content_size=1, write_checksum=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _append(source: DurableFile, target: DurableFile, position: int) -> None:
    """Copy all of `source` to `target` from `position`."""
    done = 0
    while block := source.read_at(done, _COPY_BYTES):
        target.write_at(position + done, block)
        done += len(block)
