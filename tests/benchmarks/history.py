"""A generated history: the newest `.zck` of one ext4 image, published, and what clients of a hundred old versions lack of it.

Sizes are those of the measurements that the goals come from: an image of some 350 MB that takes 100 MB compressed; each of ten
releases changes about 40 places, so that old versions lack 4 to 33 MB in 40 to 260 ranges. Here there are ten times as many
versions, each a tenth as far from the next. Old versions are cut by the product's own chunker; around each change only,
until the cuts are those of before again, and the last one is compared with a cut of everything.
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import tool
from tests.builders.libraries import library_ext4
from tests.builders.repository import START, RepositoryBuilder
from update.chunks.chunker import index_image
from update.chunks.plan import Source, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import digest_of
from update.durable import Disk
from update.publish.images import write_zchunk

CONTENT_BYTES: Final = 280 << 20
EDITS_PER_VERSION: Final = 4
CLUSTER_BYTES: Final = 384 << 10

Piece = tuple[int, int, bytes]
"""Offset, size and SHA-256 of a chunk, as `index_image` yields them."""


@dataclass(frozen=True, slots=True)
class History:
    """The newest `.zck`, published in a folder, and what each client lacks of it."""

    folder: Path
    root: bytes
    path: str
    content: bytes
    index: HeaderIndex
    wanted: tuple[tuple[Range, ...], ...]

    def clients(self, count: int) -> tuple[tuple[Range, ...], ...]:
        """What `count` clients lack whose versions are spread over the history."""
        return self.wanted[:: len(self.wanted) // count]

    def union_bytes(self, clients: int) -> int:
        """Header and every chunk that one of `clients` lacks, once."""
        return self.index.header_size + sum(self.index[number].length for number in self._numbers(clients))

    def union_ranges(self, clients: int) -> int:
        """In how many pieces of the file the union lies."""
        numbers = self._numbers(clients)
        return sum(number - 1 not in numbers for number in numbers)

    def _numbers(self, clients: int) -> set[int]:
        spans = (span for ranges in self.clients(clients) for span in ranges)
        return {number for span in spans for number in self.index.covering(span.start, span.length)}


def make_history(work: Path, versions: int, *, content_bytes: int = CONTENT_BYTES) -> History:
    """Make the image of this machine's libraries, and go back from it edit by edit."""
    image, zck = library_ext4(work / "image", content_bytes, tool("mkfs.ext4")), work / "image.zck"
    index = write_zchunk(image, zck, Disk())
    content = zck.read_bytes()
    builder = RepositoryBuilder(now=START)
    builder.add_target("image.zck", content, {"zckHeader": {"sha256": digest_of(index.raw), "length": index.header_size}})
    builder.publish()
    builder.write_to(work / "origin")
    old = OldVersion(bytearray(image.read_bytes()), [(chunk.offset, chunk.size, chunk.digest) for chunk in index])
    dice, wanted = random.Random(7), []
    for _ in range(versions):
        for _ in range(EDITS_PER_VERSION):
            old.edit(dice.randrange(len(old.image) - CLUSTER_BYTES), dice.randbytes(CLUSTER_BYTES))
        wanted.append(plan_delta(index, Source(old.pieces)).ranges)
    if old.pieces != list(old.cut(0)):
        raise AssertionError("an old version is not cut as the chunker cuts it")
    path = f"targets/{digest_of(content)}.image.zck"
    return History(work / "origin", builder.root_bytes, path, content, index, tuple(wanted))


@dataclass(slots=True)
class OldVersion:
    """An image that is edited in place, and its chunks."""

    image: bytearray
    pieces: list[Piece]

    def edit(self, start: int, content: bytes) -> None:
        """Overwrite a place, and cut anew from the chunk that it is in until a cut is as before."""
        self.image[start : start + len(content)] = content
        offsets = [offset for offset, _, _ in self.pieces]
        first = bisect_right(offsets, start) - 1
        new: list[Piece] = []
        for piece in self.cut(offsets[first]):
            last = bisect_left(offsets, piece[0])
            if piece[0] >= start + len(content) and last < len(offsets) and offsets[last] == piece[0]:
                self.pieces[first:last] = new
                return
            new.append(piece)
        self.pieces[first:] = new

    def cut(self, base: int) -> Iterator[Piece]:
        """The chunks from a cut at `base` on."""

        def read(offset: int, size: int) -> bytes:
            return bytes(self.image[base + offset : base + offset + size])

        for offset, size, digest in index_image(read, len(self.image) - base, workers=1):
            yield base + offset, size, digest
