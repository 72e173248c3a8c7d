"""Makes the member of an SWUpdate `rdiff_image`: a librsync delta between two image files, in one zstd frame.

A librsync delta is not compressed by itself, and holds no digest of its base or of its result: SWUpdate installs one on any
base and reports success (measured with 2022.12). Who publishes one says from which bundle it leads (`deltaFrom` in the
target's metadata), and who offers it keeps to that.

Blocks of 2 KiB, unless the signature would grow beyond what is kept in memory: rdiff's own choice, the square root of the
size, finds far less in images of hundreds of MiB.
"""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from update.chunks.chunker import file_reader
from update.chunks.rdiff_delta import write_delta
from update.chunks.rdiff_signature import MAX_SIGNATURE_BYTES, STRONG_BYTES, read_signature, write_signature
from update.errors import StoreError

_BLOCK_BYTES: Final = 2048
_LEVEL: Final = 9


def write_rdiff(base: Path, new: Path, out: Path) -> int:
    """Write `out`, the packed delta from `base` to `new`; its unpacked size in bytes. Errors: `StoreError`, `CorruptError`."""
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(path.open("rb")) for path in (base, new)]
            sizes = [file.seek(0, io.SEEK_END) for file in files]
            target = opened.enter_context(out.open("wb"))
            return _write(files, sizes, target)
    except OSError as error:
        raise StoreError(f"cannot make an rdiff from {base} to {new}: {error.strerror or error}") from error


def _write(files: Sequence[BinaryIO], sizes: Sequence[int], target: BinaryIO) -> int:
    old, new = (file_reader(file.fileno()) for file in files)
    sums = io.BytesIO()
    blocks = MAX_SIGNATURE_BYTES // (4 + STRONG_BYTES)
    write_signature(old, sizes[0], sums.write, block_bytes=max(_BLOCK_BYTES, -(-sizes[0] // blocks)))
    sums.seek(0)
    packer, unpacked = zstandard.ZstdCompressor(level=_LEVEL).compressobj(), 0

    def write(data: bytes) -> None:
        nonlocal unpacked
        unpacked += len(data)
        target.write(packer.compress(data))

    write_delta(read_signature(sums), new, sizes[1], write)
    target.write(packer.flush())
    return unpacked
