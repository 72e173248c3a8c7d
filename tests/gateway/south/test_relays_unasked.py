"""What is fetched before somebody asks goes the way of everything else, and stands back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.builders.relay_site import RelaySite
from tests.builders.relayed import MemorySource, body_of, info_of, make_zck, until
from update.chunks.ranges import Range
from update.errors import NoSpaceError, SlowError, UnreachableError
from update.trust.verified import TargetInfo


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def info(zck: Path) -> TargetInfo:
    return info_of(zck)


@pytest.fixture
def upstream(zck: Path) -> MemorySource:
    return MemorySource(zck.read_bytes())


@pytest.fixture
async def site(tmp_path: Path, upstream: MemorySource) -> AsyncIterator[RelaySite]:
    made = RelaySite(tmp_path, {"plant": [upstream]}, hold_s=20.0)
    yield made
    await made.relays.close()


async def test_what_was_brought_costs_its_readers_nothing_and_is_published_when_complete(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, zck: Path
) -> None:
    body = body_of(zck)
    half = Range(body.start, body.length // 2)
    await site.relays.bring(info, [half])
    asked = upstream.bytes_asked()
    assert asked < info.length
    assert await site.read(info, half) == zck.read_bytes()[half.start : half.end]
    assert upstream.bytes_asked() == asked
    await site.relays.bring(info, [body])
    await site.relays.settle()
    assert [each.info for each in site.published] == [info]
    await site.relays.bring(info, [body])
    assert upstream.bytes_asked() == info.length


async def test_what_cannot_be_stored_is_not_fetched(site: RelaySite, upstream: MemorySource, info: TargetInfo, zck: Path) -> None:
    site.full = True
    for _ in range(2):
        with pytest.raises(NoSpaceError):
            await site.relays.bring(info, [body_of(zck)])
    assert upstream.requests == [(Range(0, body_of(zck).start),)], "its header, which is not fetched again"
    site.full = False
    await site.read(info, Range(body_of(zck).start, 10))
    site.full = True
    asked = upstream.bytes_asked()
    with pytest.raises(NoSpaceError):
        await site.relays.bring(info, [body_of(zck)])
    assert upstream.bytes_asked() == asked


async def test_a_file_that_is_being_brought_is_not_evicted(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, zck: Path
) -> None:
    upstream.gate.clear()
    bringing = asyncio.create_task(site.relays.bring(info, [body_of(zck)]))
    await until(lambda: upstream.open > 0)
    assert not await site.relays.evict(info.sha256)
    upstream.gate.set()
    await bringing
    await site.relays.settle()


async def test_it_is_not_evicted_to_make_room_for_itself(site: RelaySite, info: TargetInfo, zck: Path) -> None:
    body = body_of(zck)
    await site.relays.bring(info, [Range(body.start, 10)])
    await site.relays.settle()
    evicted: list[bool] = []

    async def grow(grown: TargetInfo, _needed_bytes: int) -> None:
        evicted.append(await site.relays.evict(grown.sha256))

    site.relays._grow = grow
    await site.relays.bring(info, [Range(body.start, body.length // 2)])
    assert evicted == [False]


async def test_trouble_with_upstream_is_told_by_name(tmp_path: Path, upstream: MemorySource, info: TargetInfo, zck: Path) -> None:
    site = RelaySite(tmp_path, {"plant": [upstream]}, hold_s=0.05)
    await site.relays.bring(info, [Range(body_of(zck).start, 10)])
    upstream.gate.clear()
    with pytest.raises(SlowError, match="did not send"):
        await site.relays.bring(info, [body_of(zck)])
    upstream.fail_after = 0
    upstream.gate.set()
    await site.relays.settle()
    with pytest.raises(UnreachableError):
        await site.relays.bring(info, [body_of(zck)])
    await site.relays.close()


async def test_it_is_quiet_when_nobody_waits_and_noise_is_borne_for_a_while(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, zck: Path
) -> None:
    async with asyncio.timeout(10):
        await site.relays.quiet(1000)
    upstream.gate.clear()
    reading = asyncio.create_task(site.read(info, body_of(zck)))
    await until(lambda: upstream.open > 0)
    bringing = asyncio.create_task(site.relays.bring(info, [body_of(zck)]))
    waiting = asyncio.create_task(site.relays.quiet(1000))
    async with asyncio.timeout(10):
        await site.relays.quiet(0.01)
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    upstream.gate.set()
    await reading
    async with asyncio.timeout(10):
        await waiting
    await bringing
