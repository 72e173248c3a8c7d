"""A `.zck` that is relayed, what signs it, and an upstream in memory that counts, waits and fails on demand."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from update.chunks.ranges import Range
from update.digest import digest_file, digest_of
from update.durable import Disk
from update.errors import UnreachableError
from update.publish.images import write_zchunk, zck_header
from update.trust.verified import Provenance, TargetCustom, TargetInfo, VerifiedChunkIndex, ZckHeader, verify_chunk_index
from update.wire.ranged import Spare


def make_zck(folder: Path, *, blocks: int = 600, seed: int = 5) -> Path:
    """About 2 KiB for each block, of which half are zeros in the image; 40 chunks for 600 blocks."""
    image, dice = folder / "image", random.Random(seed)
    image.write_bytes(b"".join(dice.randbytes(2048) + bytes(2048) for _ in range(blocks)))
    write_zchunk(image, folder / "image.zck", Disk())
    return folder / "image.zck"


def make_next(folder: Path, before: Path, *, at: float, blocks: int = 40, seed: int = 6) -> Path:
    """A later version of `before`, in another folder: some blocks are new from such a part of the image on."""
    image = bytearray(before.with_name("image").read_bytes())
    start = int(at * (len(image) // 4096)) * 4096
    image[start : start + blocks * 4096] = random.Random(seed).randbytes(blocks * 4096)
    (folder / "image").write_bytes(image)
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return folder / "image.zck"


def new_chunks(new: Path, *before: Path) -> dict[int, int]:
    """Chunks of `new` that are stored the same way in none of `before`: number -> stored bytes."""
    known = {(chunk.compressed_digest, chunk.length) for each in before for chunk in index_of(each).header}
    return {
        chunk.index: chunk.length
        for chunk in index_of(new).header
        if chunk.length and (chunk.compressed_digest, chunk.length) not in known
    }


def index_of(zck: Path) -> VerifiedChunkIndex:
    """Its header, proved."""
    raw = zck_header(zck)
    return verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF, source="image.zck")


def body_of(zck: Path) -> Range:
    """Everything behind its header."""
    index = index_of(zck).header
    return Range(index.header_size, index.total_length - index.header_size)


def custom_of(zck: Path) -> TargetCustom:
    """What metadata signs besides length and digest."""
    raw = zck_header(zck)
    return TargetCustom(hw_ids=("board:1",), version="1.0", zck_header=ZckHeader(digest_of(raw), len(raw)))


def info_of(zck: Path, repository: str = "plant", path: str = "os/image.zck") -> TargetInfo:
    """The target as verified metadata would list it."""
    sha256, length = digest_file(zck)
    return TargetInfo(repository, path, length, sha256, custom_of(zck), "targets")


class MemorySource:
    """A `RangeSource` of bytes in memory, delivered in pieces; from byte `gate_from` on only while `gate` is set."""

    def __init__(self, content: bytes, name: str = "memory") -> None:
        self.name = name
        self.content = content
        self.requests: list[tuple[Range, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.gate_from = 0
        self.fail_after: int | None = None
        self.error: Callable[[], Exception] = lambda: UnreachableError("cut")
        self.piece_bytes = 7000
        self.open = 0
        self.failures = 0
        self.ranged = True

    async def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        self.requests.append(tuple(ranges))
        self.open += 1
        sent = 0
        try:
            for span in ranges:
                for start in range(span.start, span.end, self.piece_bytes):
                    if start >= self.gate_from:
                        await self.gate.wait()
                    if self.fail_after is not None and sent >= self.fail_after:
                        raise self.error()
                    piece = self.content[start : min(start + self.piece_bytes, span.end)]
                    sent += len(piece)
                    yield start, piece
        finally:
            self.open -= 1

    def failed(self) -> None:
        self.failures += 1

    def bytes_asked(self) -> int:
        return sum(span.length for request in self.requests for span in request)


async def everything_else_ended(*, within_s: float = 5.0) -> None:
    """Return when no task but the caller's is left; fail when some stay."""
    async with asyncio.timeout(within_s):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


def open_descriptors() -> list[str]:
    """What this process has open, by what it is."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # the listing itself
            continue
    return sorted(found)


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Return when `condition` holds: for what happens in another process, or in the kernel, and tells nobody."""
    async with asyncio.timeout(within_s):
        for _ in range(int(within_s * 1000)):
            if condition():
                return
            await asyncio.sleep(0.005)
    raise TimeoutError
