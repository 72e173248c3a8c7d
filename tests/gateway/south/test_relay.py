"""The relay fetches each missing chunk once, holds requests, and never serves or claims what is not there."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.relay import RANGES_PER_REQUEST, RelayedFile
from gateway.south.sparse import SparseFile
from update.chunks.ranges import Range
from update.digest import digest_of
from update.durable import Disk
from update.errors import ChunkError, SlowError, UnreachableError
from update.publish.images import write_zchunk, zck_header
from update.trust.verified import Provenance, VerifiedChunkIndex, verify_chunk_index


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zck")
    image = folder / "image"
    dice = random.Random(5)
    image.write_bytes(b"".join(dice.randbytes(2048) + bytes(2048) for _ in range(600)))
    write_zchunk(image, folder / "image.zck", Disk())
    return folder / "image.zck"


def index_of(zck: Path) -> VerifiedChunkIndex:
    raw = zck_header(zck)
    return verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF, source="image.zck")


class Upstream:
    """Serves ranges from memory in pieces; counts, waits and fails on demand."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requests: list[tuple[Range, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail_after: int | None = None
        self.piece_bytes = 7000

    async def read_ranges(self, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        self.requests.append(tuple(ranges))
        sent = 0
        for span in ranges:
            for start in range(span.start, span.end, self.piece_bytes):
                await self.gate.wait()
                if self.fail_after is not None and sent >= self.fail_after:
                    raise UnreachableError("cut")
                piece = self.content[start : min(start + self.piece_bytes, span.end)]
                sent += len(piece)
                yield start, piece

    def bytes_asked(self) -> int:
        return sum(span.length for request in self.requests for span in request)


Opener = Callable[[Upstream], RelayedFile]


@pytest.fixture
def open_relay(zck: Path, tmp_path: Path) -> Opener:
    def opened(upstream: Upstream, *, hold_s: float = 20.0) -> RelayedFile:
        return RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)), upstream, hold_s=hold_s)

    return opened


def body(zck: Path) -> Range:
    index = index_of(zck).header
    return Range(index.header_size, index.total_length - index.header_size)


async def test_concurrent_readers_of_overlapping_ranges_cost_each_chunk_once(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    relayed = open_relay(upstream)
    everything = body(zck)
    third = everything.length // 3
    spans = [Range(everything.start + at * third // 2, third) for at in range(5)]
    await asyncio.gather(*(relayed.ensure([span]) for span in spans))
    asked = sorted(span for request in upstream.requests for span in request)
    assert all(before.end <= after.start for before, after in pairwise(asked))
    await relayed.ensure([everything])
    assert upstream.bytes_asked() == everything.length
    assert relayed.sparse.path.read_bytes() == zck.read_bytes()
    await relayed.close()


async def test_a_reader_that_goes_away_disturbs_nobody(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    upstream.gate.clear()
    relayed = open_relay(upstream)
    first = asyncio.create_task(relayed.ensure([body(zck)]))
    second = asyncio.create_task(relayed.ensure([body(zck)]))
    await asyncio.sleep(0)
    first.cancel()
    upstream.gate.set()
    await second
    assert upstream.bytes_asked() == body(zck).length
    assert first.cancelled()
    await relayed.close()


async def test_a_failed_fetch_fails_its_readers_and_the_next_one_gets_only_the_rest(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    upstream.fail_after = body(zck).length // 2
    relayed = open_relay(upstream)
    with pytest.raises(UnreachableError):
        await relayed.ensure([body(zck)])
    had = relayed.sparse.count()
    assert 0 < had < len(relayed.sparse.index)
    upstream.fail_after = None
    upstream.requests.clear()
    await relayed.ensure([body(zck)])
    assert upstream.bytes_asked() == sum(chunk.length for chunk in list(relayed.sparse.index)[had:])
    await relayed.close()


async def test_a_lying_upstream_is_refused_and_the_good_chunks_stay(zck: Path, open_relay: Opener) -> None:
    content = bytearray(zck.read_bytes())
    middle = index_of(zck).header[len(index_of(zck).header) // 2]
    content[middle.start] ^= 1
    relayed = open_relay(Upstream(bytes(content)))
    with pytest.raises(ChunkError):
        await relayed.ensure([body(zck)])
    assert relayed.sparse.count() == len(relayed.sparse.index) - 1
    assert not relayed.sparse.holds(middle.index)
    await relayed.close()


async def test_a_slow_upstream_holds_the_request_until_its_time_is_over(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    upstream.gate.clear()
    relayed = RelayedFile(open_relay(upstream).sparse, upstream, hold_s=0.05)
    with pytest.raises(SlowError):
        await relayed.ensure([body(zck)])
    await relayed.close()


async def test_a_restart_finds_what_was_made_durable(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    relayed = open_relay(upstream)
    await relayed.ensure([Range(body(zck).start, body(zck).length // 2)])
    await relayed.close()
    again = open_relay(upstream)
    upstream.requests.clear()
    await again.ensure([Range(body(zck).start, body(zck).length // 2)])
    assert upstream.requests == []
    await again.close()


async def test_a_chunk_that_rotted_on_disk_is_fetched_again(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())
    relayed = open_relay(upstream)
    await relayed.ensure([body(zck)])
    await relayed.close()
    damaged = index_of(zck).header[3]
    with relayed.sparse.path.open("r+b") as file:
        file.seek(damaged.start)
        file.write(bytes([zck.read_bytes()[damaged.start] ^ 255]))
    again = open_relay(upstream)
    upstream.requests.clear()
    await again.ensure([body(zck)])
    assert upstream.requests == [(Range(damaged.start, damaged.length),)]
    assert again.sparse.path.read_bytes() == zck.read_bytes()
    await again.close()


def test_many_scattered_chunks_are_asked_in_bounded_requests(zck: Path, open_relay: Opener) -> None:
    upstream = Upstream(zck.read_bytes())

    async def run() -> None:
        relayed = open_relay(upstream)
        index = relayed.sparse.index
        await relayed.ensure([Range(index[number].start, 1) for number in range(0, len(index), 2)])
        await relayed.close()

    asyncio.run(run())
    assert all(len(request) <= RANGES_PER_REQUEST for request in upstream.requests)


@settings(max_examples=40, deadline=None)
@given(
    wishes=st.lists(st.tuples(st.integers(0, 1 << 21), st.integers(1, 1 << 19)), min_size=1, max_size=8),
    piece_bytes=st.integers(500, 300_000),
    fail_after=st.none() | st.integers(0, 1 << 20),
)
def test_whatever_is_asked_and_whatever_fails_what_is_claimed_is_there(
    zck: Path, tmp_path_factory: pytest.TempPathFactory, wishes: list[tuple[int, int]], piece_bytes: int, fail_after: int | None
) -> None:
    content = zck.read_bytes()
    folder = tmp_path_factory.mktemp("relay")

    async def run() -> None:
        upstream = Upstream(content)
        upstream.piece_bytes, upstream.fail_after = piece_bytes, fail_after
        relayed = RelayedFile(SparseFile.open(Disk(), folder / "x.zck", index_of(zck)), upstream)
        results = await asyncio.gather(*(relayed.ensure([Range(*wish)]) for wish in wishes), return_exceptions=True)
        held = relayed.sparse.path.read_bytes()
        for (start, length), result in zip(wishes, results, strict=True):
            if result is None:
                stop = min(start + length, len(content))
                assert held[start:stop] == content[start:stop]
            else:
                assert isinstance(result, UnreachableError)
        await relayed.close()
        again = SparseFile.open(Disk(), folder / "x.zck", index_of(zck))
        assert again.count() == relayed.sparse.count()
        assert all(again.holds(number) for number in range(len(again.index)) if relayed.sparse.holds(number))
        again.close()

    asyncio.run(run())
