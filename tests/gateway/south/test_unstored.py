"""Where there is no room, chunks pass through bounded memory, and are right."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.south.unstored import Unstored
from tests.builders.relay_site import RelaySite, take
from tests.builders.relayed import MemorySource, body_of, index_of, info_of, make_zck, open_descriptors, until
from update.chunks.ranges import Range
from update.durable import Kind, Operation
from update.errors import NoSpaceError, UnreachableError
from update.trust.verified import TargetInfo, VerifiedChunkIndex


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def content(zck: Path) -> bytes:
    return zck.read_bytes()


@pytest.fixture(scope="module")
def info(zck: Path) -> TargetInfo:
    return info_of(zck)


@pytest.fixture(scope="module")
def index(zck: Path) -> VerifiedChunkIndex:
    return index_of(zck)


@pytest.fixture(scope="module")
def half(zck: Path) -> Range:
    return Range(body_of(zck).start, body_of(zck).length // 2)


@pytest.fixture
def upstream(content: bytes) -> MemorySource:
    return MemorySource(content)


@pytest.fixture
async def site(tmp_path: Path, upstream: MemorySource) -> AsyncIterator[RelaySite]:
    made = RelaySite(tmp_path, {"plant": [upstream]})
    yield made
    await made.relays.close()


async def test_what_there_is_no_room_for_is_passed_on_and_not_begun(
    site: RelaySite, info: TargetInfo, content: bytes, half: Range
) -> None:
    before = open_descriptors()
    site.full = True
    for span in (Range(0, 10), half, Range(0, len(content)), Range(len(content) - 10, 10)):
        assert await site.read(info, span) == content[span.start : span.end]
    assert site.sparse_files == []
    site.full = False
    assert await site.read(info, half) == content[half.start : half.end]
    assert len(site.sparse_files) > 0, "as soon as there is room it is stored"
    await site.relays.close()
    assert open_descriptors() == before


async def test_the_header_is_fetched_once_though_it_is_not_stored(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, index: VerifiedChunkIndex
) -> None:
    site.full = True
    for start in range(0, 900_000, 100_000):
        await site.read(info, Range(start, 10))
    assert upstream.requests.count((Range(0, index.header.header_size),)) == 1


async def test_what_is_on_disk_is_not_fetched_again_and_what_rotted_there_is(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, content: bytes, half: Range
) -> None:
    await site.read(info, half)
    await site.relays.settle()
    with (site.store.layout.sparse / f"{info.sha256}.zck").open("r+b") as file:
        file.seek(half.start + 5)
        file.write(b"rot")
    asked, site.full = upstream.bytes_asked(), True
    assert await site.read(info, Range(0, len(content))) == content
    assert upstream.bytes_asked() - asked < len(content) - half.length + 70_000, "the rest, and the chunk that rotted"


async def test_a_full_disk_costs_its_batch_and_the_rest_is_passed_on_until_there_is_room(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, content: bytes
) -> None:
    written = 0

    def full(operation: Operation) -> None:
        nonlocal written
        if operation.kind is Kind.WRITE and operation.path.suffix == ".zck":
            written += len(operation.data)
            if written > 900_000:
                raise NoSpaceError("cannot write: No space left on device")

    site.fail = [full]
    whole = Range(0, len(content))
    assert await site.read(info, whole) == content
    assert upstream.bytes_asked() < 1.6 * len(content)
    site.fail = []
    upstream.requests.clear()
    assert await site.read(info, whole) == content
    assert upstream.bytes_asked() < len(content) - 300_000
    await site.relays.settle()
    path = site.store.find(info)
    assert path is not None
    assert path.read_bytes() == content


async def test_after_the_disk_was_full_nothing_is_fetched_for_it_for_a_while(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, content: bytes, half: Range
) -> None:
    await site.read(info, Range(0, 10))

    def full(operation: Operation) -> None:
        if operation.kind is Kind.WRITE and operation.path.suffix == ".zck":
            raise NoSpaceError("cannot write: No space left on device")

    site.fail = [full]
    site.relays._full_pause_s = 3600.0
    assert await site.read(info, half) == content[half.start : half.end]
    asked = upstream.bytes_asked()
    later = Range(half.end + 100_000, 10)
    assert await site.read(info, later) == content[later.start : later.end]
    assert upstream.bytes_asked() - asked < 200_000, "its chunk, once"


async def test_a_full_disk_at_the_beginning_leaves_nothing_half_done(site: RelaySite, info: TargetInfo, content: bytes) -> None:
    def full(operation: Operation) -> None:
        if operation.path.suffix == ".zck":
            raise NoSpaceError("cannot create: No space left on device")

    site.fail = [full]
    assert await site.read(info, Range(0, 10)) == content[:10]
    assert site.sparse_files == []
    site.fail = []
    assert await site.read(info, Range(0, 10)) == content[:10]
    assert site.sparse_files != []


async def test_clients_that_ask_at_the_same_time_share_what_comes(
    upstream: MemorySource, content: bytes, index: VerifiedChunkIndex, half: Range
) -> None:
    unstored = Unstored(memory_bytes=10 * len(content), at_once=5)
    leases = await asyncio.gather(*(unstored.lend(index, None, [half], [upstream]) for _ in range(5)))
    assert {take(lease, half) for lease in leases} == {content[half.start : half.end]}
    assert upstream.bytes_asked() < half.length + 200_000
    await unstored.close()


async def test_memory_is_bounded_and_comes_back(
    upstream: MemorySource, content: bytes, index: VerifiedChunkIndex, half: Range
) -> None:
    before = open_descriptors()
    unstored = Unstored(memory_bytes=half.length + 200_000, at_once=2)
    first, second = [await unstored.lend(index, None, [half], [upstream]) for _ in range(2)]
    third = asyncio.create_task(unstored.lend(index, None, [half], [upstream]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not third.done(), "it waits for its turn"
    assert take(first, half) == take(second, half) == content[half.start : half.end]
    assert take(await third, half) == content[half.start : half.end]
    with pytest.raises(NoSpaceError, match="ask for smaller ranges"):
        await unstored.lend(index, None, [Range(0, len(content))], [upstream])
    await unstored.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("trouble", ["gone upstream", "gone client"])
async def test_what_fails_or_goes_away_gives_its_turn_back(
    upstream: MemorySource, content: bytes, index: VerifiedChunkIndex, half: Range, trouble: str
) -> None:
    unstored = Unstored(memory_bytes=len(content), at_once=1)
    if trouble == "gone upstream":
        with pytest.raises(UnreachableError):
            await unstored.lend(index, None, [half], [])
    else:
        upstream.gate.clear()
        waiting = asyncio.create_task(unstored.lend(index, None, [half], [upstream]))
        await until(lambda: upstream.open > 0)
        waiting.cancel()
        await asyncio.wait([waiting])
        upstream.gate.set()
    assert take(await unstored.lend(index, None, [half], [upstream]), half) == content[half.start : half.end]
    await unstored.close()


def test_of_many_ranges_the_first_that_fit_are_answered(index: VerifiedChunkIndex) -> None:
    chunks = [chunk for chunk in index.header if chunk.length]
    unstored = Unstored(memory_bytes=chunks[0].length + chunks[1].length)
    ranges = [Range(chunk.start + 1, 1) for chunk in chunks[:4]]
    assert unstored.leading(index.header, ranges) == 2
    assert unstored.leading(index.header, ranges[:2]) == 2
    assert unstored.leading(index.header, [Range(0, index.header.total_length)]) == 0
