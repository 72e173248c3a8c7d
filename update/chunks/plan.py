"""Delta plans: what of a new image is at hand, what must travel, in which byte ranges; a pure function of two indexes.

Rules:

1. A chunk whose uncompressed digest is at hand is read from there. Matching is on uncompressed digests only: compressed
   bytes differ between versions of libzstd.
2. A chunk of zeros is written without being read or fetched.
3. A chunk that occurs again in the new image is fetched at its first place and copied from there afterwards.
4. Ranges are those of the chunks to fetch, each once, ascending, adjacent ones merged.

Whoever applies a plan verifies `chunk.digest` of every byte it reads (`Reuse`, `Copy`): the source may have rotted since
it was indexed. Such a chunk is fetched after all: `index[step.chunk.index]` says from where.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from update.chunks.fields import HashType
from update.chunks.ranges import Range
from update.chunks.zchunk import Chunk, HeaderIndex
from update.errors import UnsupportedError

_FETCH: Final = -1
_ZERO: Final = -2
_COPY: Final = -3  # and below: a copy of chunk `_COPY - action`
_ZEROS: Final = bytes(1 << 16)


class Source:
    """Chunks at hand: SHA-256 of the uncompressed data -> where it is (offset and size in bytes) in the old image."""

    __slots__ = ("_places",)

    def __init__(self, pieces: Iterable[tuple[int, int, bytes]] = ()) -> None:
        """Take (offset, size, sha256) as `chunker.index_image` yields them."""
        self._places: dict[bytes, tuple[int, int]] = {}
        for offset, size, digest in pieces:
            self._places.setdefault(digest, (offset, size))

    @classmethod
    def of_index(cls, index: HeaderIndex) -> Self:
        """What an image holds that was installed from `index`."""
        _check_usable(index)
        return cls((chunk.offset, chunk.size, chunk.digest) for chunk in index)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, digest: bytes, size: int) -> int | None:
        """Offset of the data with `digest`, if it is at hand with this size."""
        offset, found = self._places.get(digest, (0, -1))
        return offset if found == size else None


@dataclass(frozen=True, slots=True)
class Reuse:
    """Read the chunk from the old image at `source_offset`, and verify it."""

    chunk: Chunk
    source_offset: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Read the chunk from the image being written at `image_offset`, always an earlier place, and verify it."""

    chunk: Chunk
    image_offset: int


@dataclass(frozen=True, slots=True)
class Zero:
    """Write `chunk.size` zeros."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get `chunk.length` bytes from `chunk.start` of the .zck, decode and write them."""

    chunk: Chunk


Step = Reuse | Copy | Zero | Fetch


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """How to make the image of `index`. Sizes in bytes; reuse + copy + zero + fetched sizes add up to the image.

    `fetch_bytes` counts compressed bytes on the wire, without the header; `fetched_size` what they unpack to.
    """

    index: HeaderIndex
    ranges: tuple[Range, ...]
    fetch_bytes: int
    fetched_size: int
    reuse_bytes: int
    copy_bytes: int
    zero_bytes: int
    fetch_chunks: int
    _actions: "array[int]"

    @property
    def steps(self) -> Iterator[Step]:
        """One step per chunk, in image order; made while iterating, so a plan stays as small as 8 bytes per chunk."""
        for chunk, action in zip(self.index, self._actions, strict=True):
            if action >= 0:
                yield Reuse(chunk, action)
            elif action == _FETCH:
                yield Fetch(chunk)
            elif action == _ZERO:
                yield Zero(chunk)
            else:
                yield Copy(chunk, self.index[_COPY - action].offset)


def plan_delta(new: HeaderIndex, have: Source) -> DeltaPlan:
    """Plan the image of `new` from what is at hand; `UnsupportedError` for a header that deltas cannot use."""
    _check_usable(new)
    zeros = _zero_chunks(new)
    fetched: dict[bytes, int] = {}
    actions = array("q")
    sizes = {_FETCH: 0, _ZERO: 0, _COPY: 0, 0: 0}
    for chunk in new:
        action = _choose(chunk, have, zeros, fetched)
        actions.append(action)
        sizes[max(min(action, 0), _COPY)] += chunk.size
    missing = [Range(new[number].start, new[number].length) for number in fetched.values()]
    return DeltaPlan(
        index=new,
        ranges=merge(missing),
        fetch_bytes=sum(part.length for part in missing),
        fetched_size=sizes[_FETCH],
        reuse_bytes=sizes[0],
        copy_bytes=sizes[_COPY],
        zero_bytes=sizes[_ZERO],
        fetch_chunks=len(missing),
        _actions=actions,
    )


def _choose(chunk: Chunk, have: Source, zeros: frozenset[int], fetched: dict[bytes, int]) -> int:
    if chunk.index in zeros:
        return _ZERO
    at_hand = have.find(chunk.digest, chunk.size)
    if at_hand is not None:
        return at_hand
    first = fetched.setdefault(chunk.digest, chunk.index)
    return _FETCH if first == chunk.index else _COPY - first


def _zero_chunks(index: HeaderIndex) -> frozenset[int]:
    """Numbers of the chunks that are all zeros, by their digests alone.

    Sizes are visited ascending with one running hash, so the work is that of the largest chunk, however many sizes
    a hostile header names.
    """
    state, hashed, digest = hashlib.sha256(), 0, hashlib.sha256().digest()
    found = []
    for number in sorted(range(len(index)), key=index.size_of):
        size = index.size_of(number)
        while hashed < size:
            block = _ZEROS[: size - hashed]
            state.update(block)
            hashed += len(block)
            if hashed == size:
                digest = state.digest()
        if index.digest_of(number) == digest:
            found.append(number)
    return frozenset(found)


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges, given ascending, without empty ones and with adjacent ones merged."""
    merged: list[Range] = []
    for part in ranges:
        if merged and merged[-1].end == part.start:
            merged[-1] = Range(merged[-1].start, merged[-1].length + part.length)
        elif part.length:
            merged.append(part)
    return tuple(merged)


def _check_usable(index: HeaderIndex) -> None:
    if index.dictionary is not None:
        raise UnsupportedError("delta with a zchunk dictionary: build the image without one, as swupdate demands too")
    if not index.has_digests or index.chunk_hash is not HashType.SHA256:
        kind = index.chunk_hash.name.lower() if index.has_digests else "none"
        raise UnsupportedError(
            f"delta needs sha256 digests of uncompressed chunks, this header has {kind}: "
            "build it with `zck -u --chunk-hash-type sha256`"
        )
