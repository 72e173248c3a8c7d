r"""Pair patches: from one image to another, in windows, so that memory is bounded by configuration and not by the images.

A zchunk delta knows nothing of the old image below whole chunks. Who knows both images does better: what has not
changed is copied, and what has is compressed by zstd with the old content it came from as a raw dictionary.

The file, format version 1 (integers big-endian):

    head     "FRPP", version u16, largest dictionary u32, most literal bytes of a window u32, old size u64, new size u64
    windows  until the new size is reached: length of the control block u32, literal bytes u32, stored bytes u32,
             SHA-256 of the window's bytes of the new image; the control block (`patch_window`); one zstd frame of all
             its literal bytes, absent without any

Rules for whoever applies:

1. Dictionary, literal bytes and the stored frame of one window are all that is held: a patch whose head asks for more
   than the configured memory is refused (`needed_bytes`), before anything else is read.
2. Every length is checked against the head, the images and what is left before it is read or allocated.
3. All dictionaries together are not much more than both images: a patch cannot keep its reader busy for ever.
4. A window's digest is known at its end only, and the digests are not signed: they find damage, no more. **The caller
   verifies every chunk of the result against the signed index**, and takes the chunks instead after any error.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import zstandard

from update.chunks.chunker import Read
from update.chunks.patch_window import MAX_CONTROL_BYTES, Control, Kind, Piece, read_control
from update.chunks.rdiff_signature import Stream, Write
from update.errors import ChunkError, LimitError, StoreError, UnsupportedError

MAGIC: Final = b"FRPP"
FORMAT_VERSION: Final = 1
DEFAULT_MEMORY_BYTES: Final = 64 << 20
MAX_MEMORY_BYTES: Final = 256 << 20
HEAD: Final = struct.Struct(">4sHIIQQ")
WINDOW: Final = struct.Struct(">III32s")
_MAX_WINDOW_LOG: Final = 28
_MOST_DICTIONARIES: Final = 2
_BUFFER_BYTES: Final = 1 << 16
_ZEROS: Final = bytes(_BUFFER_BYTES)


@dataclass(frozen=True, slots=True)
class Head:
    """What a patch says of itself; sizes in bytes."""

    dictionary_bytes: int
    literal_bytes: int
    old_size: int
    new_size: int

    @property
    def needed_bytes(self) -> int:
        """Memory for applying: the dictionary is held twice while it is handed over, literal bytes packed and unpacked."""
        return 2 * (self.dictionary_bytes + self.literal_bytes)

    def packed(self) -> bytes:
        """As it stands in the file."""
        return HEAD.pack(MAGIC, FORMAT_VERSION, self.dictionary_bytes, self.literal_bytes, self.old_size, self.new_size)


def stored_bound(size: int) -> int:
    """The largest frame of `size` bytes: zstd's bound for data that cannot be compressed."""
    return size + (size >> 8) + 64


def apply_patch(
    patch: Stream, old: Read, old_size: int, write: Write, *, size: int, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> None:
    """Write the new image, exactly `size` bytes, from `patch` and the old one.

    Errors: `ChunkError` for a patch that is malformed, damaged, or made for other images; `LimitError` for one that needs
    more than `memory_bytes`; `UnsupportedError` for a newer format; `StoreError` if the old image cannot be read.
    What was written by then is to be thrown away.
    """
    head = read_head(patch)
    if head.needed_bytes > memory_bytes:
        raise LimitError(f"patch: it needs {head.needed_bytes} bytes of memory, {memory_bytes} are allowed")
    if (head.old_size, head.new_size) != (old_size, size):
        raise ChunkError(f"patch: it leads from {head.old_size} to {head.new_size} bytes, wanted is {old_size} to {size}")
    done, reading = 0, _Reading(head)
    while done < size:
        done += _apply_window(patch, reading, old, write, left=size - done)
    if patch.read(1):
        raise ChunkError(f"patch: it goes on behind its last window, at {size} bytes of the new image")


def read_head(patch: Stream) -> Head:
    """The head, leaving the stream at the first window; `ChunkError`, `UnsupportedError`, `LimitError`."""
    data = _take(patch, HEAD.size, "its head")
    magic, version, *numbers = HEAD.unpack(data)
    if magic != MAGIC:
        raise ChunkError(f"not a pair patch: it begins {magic.hex()}, not {MAGIC.hex()}")
    if version != FORMAT_VERSION:
        raise UnsupportedError(f"pair patch of format {version}, this release reads {FORMAT_VERSION}: take the chunks instead")
    head = Head(*numbers)
    if head.needed_bytes > MAX_MEMORY_BYTES:
        raise LimitError(f"patch: it needs {head.needed_bytes} bytes of memory, the limit is {MAX_MEMORY_BYTES}")
    return head


@dataclass(slots=True)
class _Reading:
    """The patch that is read, and how much of the old image its dictionaries may still take (rule 3)."""

    head: Head
    left_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.left_bytes = self.head.dictionary_bytes + _MOST_DICTIONARIES * (self.head.old_size + self.head.new_size)

    def take(self, control: Control) -> None:
        """Count the dictionary of one window; `LimitError` above the limit."""
        self.left_bytes -= control.dictionary_bytes
        if self.left_bytes < 0:
            raise LimitError(f"patch: its dictionaries take more than {_MOST_DICTIONARIES} times what both images have")


def _apply_window(patch: Stream, reading: _Reading, old: Read, write: Write, *, left: int) -> int:
    """Write one window and return its size."""
    head = reading.head
    control_bytes, literal_bytes, stored_bytes, digest = WINDOW.unpack(_take(patch, WINDOW.size, "the head of a window"))
    if control_bytes > MAX_CONTROL_BYTES or literal_bytes > head.literal_bytes or stored_bytes > stored_bound(literal_bytes):
        raise LimitError(
            f"patch: a window of {control_bytes} control, {literal_bytes} literal and {stored_bytes} stored bytes; "
            f"the limits are {MAX_CONTROL_BYTES}, {head.literal_bytes} and {stored_bound(literal_bytes)}"
        )
    control = read_control(_take(patch, control_bytes, "a control block"), old_size=head.old_size)
    if control.size > left or control.dictionary_bytes > head.dictionary_bytes:
        raise LimitError(
            f"patch: a window of {control.size} bytes with {control.dictionary_bytes} of dictionary; "
            f"{left} and {head.dictionary_bytes} are allowed"
        )
    reading.take(control)
    if control.literal_bytes != literal_bytes:
        raise ChunkError(f"patch: a window's pieces take {control.literal_bytes} literal bytes, its head says {literal_bytes}")
    literals = _literals(_take(patch, stored_bytes, "the literal bytes"), literal_bytes, control, old)
    _write_pieces(control.pieces, literals, old, write, digest)
    return control.size


def _literals(stored: bytes, size: int, control: Control, old: Read) -> bytes:
    """Unpack one frame. Its own content size is checked first: zstandard would allocate it whatever our limit."""
    if not size:
        if stored:
            raise ChunkError(f"patch: {len(stored)} stored bytes in a window without literal ones")
        return b""
    content = None
    if control.regions:
        data = read_regions(control, old)
        content = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        del data
    decoder = zstandard.ZstdDecompressor(dict_data=content, max_window_size=1 << _MAX_WINDOW_LOG)
    try:
        announced = zstandard.frame_content_size(stored)
        if announced != size:
            raise ChunkError(f"patch: a frame announces {announced} bytes, its window {size}")
        return decoder.decompress(stored, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ChunkError(f"patch: {len(stored)} stored bytes are no zstd frame of {size} with this old image") from error


def read_regions(control: Control, old: Read) -> bytes:
    """The dictionary of a window."""
    data = bytearray(control.dictionary_bytes)
    at = 0
    for region in control.regions:
        for part in _old_parts(old, region.start, region.length):
            data[at : at + len(part)] = part
            at += len(part)
    return bytes(data)


def _write_pieces(pieces: tuple[Piece, ...], literals: bytes, old: Read, write: Write, digest: bytes) -> None:
    """Write the window piece by piece, and judge it at its end."""
    state, taken = hashlib.sha256(), 0

    def emit(data: bytes) -> None:
        state.update(data)
        write(data)

    for piece in pieces:
        match piece.kind:
            case Kind.LITERAL:
                for at in range(taken, taken + piece.length, _BUFFER_BYTES):
                    emit(literals[at : min(at + _BUFFER_BYTES, taken + piece.length)])
                taken += piece.length
            case Kind.COPY:
                for part in _old_parts(old, piece.offset, piece.length):
                    emit(part)
            case Kind.ZERO:
                for at in range(0, piece.length, _BUFFER_BYTES):
                    emit(_ZEROS[: piece.length - at])
    if state.digest() != digest:
        raise ChunkError(f"patch: a window became {state.hexdigest()}, not {digest.hex()}; patch or old image is damaged")


def _old_parts(old: Read, offset: int, length: int) -> Iterator[bytes]:
    while length:
        data = old(offset, min(length, _BUFFER_BYTES))
        if not data:
            raise StoreError(f"the old image ended at byte {offset}: it was changed while being read")
        yield data
        offset, length = offset + len(data), length - len(data)


def _take(patch: Stream, size: int, what: str) -> bytes:
    """Exactly `size` bytes, a number that was checked."""
    data = bytearray()
    while len(data) < size and (more := patch.read(min(size - len(data), _BUFFER_BYTES))):
        data += more
    if len(data) < size:
        raise ChunkError(f"patch: cut short in {what}: {len(data)} of {size} bytes are there")
    return bytes(data)
