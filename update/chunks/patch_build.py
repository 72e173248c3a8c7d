"""Makes pair patches (`patch`) of two images whose zchunk indexes are known: what a gateway offers for one pair.

Rules:

1. Chunks that both images have are copied and zeros are written, by the indexes alone (`plan`), wherever an insertion has
   moved them. Only the rest is compressed.
2. A window ends when its literal bytes fill a quarter of the node's memory. Its dictionary takes another quarter at most:
   each is held twice at the worst moment (`Head.needed_bytes`). Making it takes about six times the node's memory.
3. The dictionary of a window is what of the old image looks most like its literal bytes (`similar`).
4. Every byte of the new image goes through the digest of its window, so an index that does not describe its image gives
   a patch that its reader refuses, never a wrong image.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zstandard

from update.chunks.chunker import Read
from update.chunks.patch import DEFAULT_MEMORY_BYTES, MAX_MEMORY_BYTES, WINDOW, Head, read_regions
from update.chunks.patch_window import MAX_PIECES, Control, Kind, Piece, write_control
from update.chunks.plan import Copy, Fetch, Reuse, Source, Step, plan_delta
from update.chunks.rabin_karp import MakeSums, best_sums
from update.chunks.ranges import Range
from update.chunks.rdiff_signature import Write
from update.chunks.similar import OldContent, join
from update.chunks.zchunk import HeaderIndex
from update.durable import Disk
from update.errors import CorruptError, LimitError

_LEVEL: Final = 12  # lazy search over hash chains; stronger levels take four times as long for a twentieth of the size
_MIN_MEMORY_BYTES: Final = 1 << 16
_READ_BYTES: Final = 1 << 20
_MIN_WINDOW_LOG: Final = 10


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is at hand: its index, and positioned reads."""

    index: HeaderIndex
    read: Read

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.index.image_size


def create_patch(old: Image, new: Image, out: Path, disk: Disk, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> int:
    """Write the patch to `out`, durably and all or nothing; its size in bytes. Errors as `write_patch`, and `StoreError`."""
    staged = out.with_name(f".{out.name}.tmp")
    position = 0
    try:
        with disk.open(staged, fresh=True) as file:

            def write(data: bytes) -> None:
                nonlocal position
                file.write_at(position, data)
                position += len(data)

            write_patch(old, new, write, memory_bytes=memory_bytes)
            file.sync()
        disk.publish(staged, out)
    finally:
        disk.remove(staged)
    return position


def write_patch(
    old: Image,
    new: Image,
    write: Write,
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    level: int = _LEVEL,
    make_sums: MakeSums | None = None,
) -> None:
    """Write the patch from `old` to `new` for nodes that allow `memory_bytes`.

    Errors: `UnsupportedError` for an index that deltas cannot use, `LimitError` for memory that makes no sense,
    `CorruptError` if an image ends early.
    """
    if not _MIN_MEMORY_BYTES <= memory_bytes <= MAX_MEMORY_BYTES:
        raise LimitError(f"patch: {memory_bytes} bytes of memory; {_MIN_MEMORY_BYTES} to {MAX_MEMORY_BYTES} make sense")
    share = memory_bytes // 4
    content = OldContent(old.read, old.size, _gone(old.index, new.index), make_sums or best_sums())
    write(Head(share, share, old.size, new.size).packed())
    plan = plan_delta(new.index, Source.of_index(old.index))
    for window in _windows(plan.steps, share):
        literals = b"".join(_read(new.read, part.start, part.length) for part in window.literals)
        regions = content.regions(literals, share) if literals else ()
        pieces = tuple(window.pieces)
        stored = _compress(literals, read_regions(Control(regions, pieces), old.read), level) if literals else b""
        control = write_control(regions, pieces)
        write(WINDOW.pack(len(control), len(literals), len(stored), _digest(new.read, window)))
        write(control + stored)


def _gone(old: HeaderIndex, new: HeaderIndex) -> tuple[Range, ...]:
    """Where the old image has chunks that the new one has not."""
    kept = {new.digest_of(number) for number in range(len(new))}
    return join(Range(chunk.offset, chunk.size) for chunk in old if chunk.size and chunk.digest not in kept)


@dataclass(slots=True)
class _Window:
    """One window while it is gathered: places in the new image, and what they are made of."""

    start: int
    size: int = 0
    literal_bytes: int = 0
    pieces: list[Piece] = field(default_factory=list)
    literals: list[Range] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Take one more piece, as part of the last one where it goes on."""
        if piece.kind is Kind.LITERAL:
            self.literals.append(Range(self.start + self.size, piece.length))
            self.literal_bytes += piece.length
        self.size += piece.length
        last = self.pieces[-1] if self.pieces else None
        goes_on = last is not None and last.kind is piece.kind
        if last is not None and goes_on and (piece.kind is not Kind.COPY or last.offset + last.length == piece.offset):
            self.pieces[-1] = Piece(last.kind, last.length + piece.length, last.offset)
        else:
            self.pieces.append(piece)


def _windows(steps: Iterator[Step], literal_limit: int) -> Iterator[_Window]:
    window = _Window(0)
    for piece in _pieces(steps, literal_limit):
        literal = piece.length if piece.kind is Kind.LITERAL else 0
        if window.literal_bytes + literal > literal_limit or len(window.pieces) >= MAX_PIECES:
            yield window
            window = _Window(window.start + window.size)
        window.add(piece)
    if window.pieces:
        yield window


def _pieces(steps: Iterator[Step], literal_limit: int) -> Iterator[Piece]:
    """The pieces of every chunk; a literal one longer than a window is cut."""
    for step in steps:
        size = step.chunk.size
        match step:
            case Reuse():
                parts = [Piece(Kind.COPY, size, step.source_offset)]
            case Fetch() | Copy():  # zstd finds what stands twice in a window
                parts = [Piece(Kind.LITERAL, min(literal_limit, size - at)) for at in range(0, size, literal_limit)]
            case _:
                parts = [Piece(Kind.ZERO, size)]
        yield from (part for part in parts if part.length)


def _digest(read: Read, window: _Window) -> bytes:
    state = hashlib.sha256()
    end = window.start + window.size
    for at in range(window.start, end, _READ_BYTES):
        state.update(_read(read, at, min(_READ_BYTES, end - at)))
    return state.digest()


def _read(read: Read, offset: int, size: int) -> bytes:
    data = read(offset, size)
    if len(data) != size:
        raise CorruptError(f"the new image ended at byte {offset + len(data)}: it is not what its index says")
    return data


def _compress(data: bytes, dictionary: bytes, level: int) -> bytes:
    """One frame. Window and search tables reach back over the whole dictionary: a level's own tables forget its beginning.

    At this level libzstd searches rows of the hash table and has no chains (its row match finder): a place that finds no
    room in the hash table is not found again.
    """
    reach = max((len(data) + len(dictionary) - 1).bit_length(), _MIN_WINDOW_LOG)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=len(dictionary),
        window_log=reach,
        chain_log=reach,
        hash_log=reach,
        enable_ldm=False,
        write_content_size=1,
        write_checksum=0,
    )
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(dict_data=content, compression_params=parameters).compress(data)
