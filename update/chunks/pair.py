"""The two forms in which a pair patch travels, and one way to make and to apply either.

| form | content | memory of whoever applies it |
|---|---|---|
| `windows` | windows with dictionaries from the old image (`patch`); far the smaller | as its head says, 256 MiB at most |
| `librsync` | a librsync delta (`rdiff`) in one zstd frame | 1 MiB or so |

Neither proves anything: **whoever applies one verifies every chunk of the result against the signed index.**
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import zstandard

from update.chunks.chunker import Read
from update.chunks.patch import apply_patch
from update.chunks.patch_build import Image, write_patch
from update.chunks.rdiff import apply_delta
from update.chunks.rdiff_delta import write_delta
from update.chunks.rdiff_signature import MAX_SIGNATURE_BYTES, STRONG_BYTES, Stream, Write, read_signature, write_signature
from update.errors import ChunkError

MIN_MEMORY_BYTES: Final = 1 << 20
_WINDOW_LOG: Final = 19  # half a MiB: all the memory that a librsync patch takes beside its buffers
_LEVEL: Final = 15
_BLOCK_BYTES: Final = 2048
_BUFFER_BYTES: Final = 1 << 16
_STEP_BYTES: Final = 64
_ENTRY_BYTES: Final = 4 + STRONG_BYTES


class PatchForm(StrEnum):
    """How a pair patch is written."""

    WINDOWS = "windows"
    LIBRSYNC = "librsync"

    @property
    def media_type(self) -> str:
        """What a server calls it."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES: Final = {
    PatchForm.WINDOWS: "application/vnd.fieldrelay.patch",
    PatchForm.LIBRSYNC: "application/vnd.librsync.delta+zstd",
}


@dataclass(frozen=True, slots=True)
class PatchOffer:
    """A patch that can be had, as whoever has it says: its form, and its size in bytes."""

    form: PatchForm
    size: int


def form_of(media_type: str) -> PatchForm | None:
    """The form that a server announces; None for one that is not known here."""
    return next((form for form, name in _MEDIA_TYPES.items() if name == media_type), None)


def write_pair(form: PatchForm, old: Image, new: Image, write: Write, *, memory_bytes: int) -> None:
    """Write the patch from `old` to `new`. Errors: `UnsupportedError`, `LimitError`, `CorruptError`, `ChunkError`."""
    match form:
        case PatchForm.WINDOWS:
            write_patch(old, new, write, memory_bytes=memory_bytes)
        case PatchForm.LIBRSYNC:
            _write_librsync(old, new, write)


def apply_pair(form: PatchForm, patch: Stream, old: Read, old_size: int, write: Write, *, size: int, memory_bytes: int) -> None:
    """Write the new image, `size` bytes, in order. Errors: `ChunkError`, `LimitError`, `UnsupportedError`, `StoreError`."""
    match form:
        case PatchForm.WINDOWS:
            apply_patch(patch, old, old_size, write, size=size, memory_bytes=memory_bytes)
        case PatchForm.LIBRSYNC:
            apply_delta(_Unpacked(patch), old, old_size, write, size=size)


def _write_librsync(old: Image, new: Image, write: Write) -> None:
    """Blocks of 2 KiB unless the signature would be too large: found to give less than half of rdiff's own choice."""
    blocks = MAX_SIGNATURE_BYTES // _ENTRY_BYTES
    block_bytes = max(_BLOCK_BYTES, -(-old.size // blocks))
    sums = _Held()
    write_signature(old.read, old.size, sums.write, block_bytes=block_bytes)
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=_WINDOW_LOG, write_checksum=0)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    write_delta(read_signature(sums), new.read, new.size, lambda data: write(packer.compress(data)))
    write(packer.flush())


class _Held:
    """Bytes that were written, as a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """Take more."""
        self._data += data

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes."""
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


class _Unpacked:
    """A stream out of one zstd frame. Window and output are bounded: a few bytes at a time, each block gives 128 KiB at most."""

    def __init__(self, packed: Stream) -> None:
        self._packed = packed
        self._decoder = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).decompressobj()
        self._input, self._output = memoryview(b""), memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end of the input."""
        while not self._output:
            self._input = self._input or memoryview(self._packed.read(_BUFFER_BYTES))
            if not self._input:
                return b""
            step, self._input = self._input[:_STEP_BYTES], self._input[_STEP_BYTES:]
            self._output = memoryview(self._unpack(step))
        taken, self._output = self._output[:size], self._output[size:]
        return bytes(taken)

    def _unpack(self, step: memoryview) -> bytes:
        try:
            return self._decoder.decompress(step)
        except zstandard.ZstdError as error:
            raise ChunkError(f"patch: no zstd frame, or one with a window above {1 << _WINDOW_LOG} bytes") from error
