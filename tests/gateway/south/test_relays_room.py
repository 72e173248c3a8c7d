"""Partly filled files make room for others, unless somebody uses them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.north.room import Room
from gateway.south.relays import Relays
from gateway.south.sparse import SparseFile, remove
from tests.builders.relay_site import RelaySite, take
from tests.builders.relayed import MemorySource, body_of, index_of, info_of, make_zck, open_descriptors, until
from tests.replay import CrashState, Recorder, assert_every_crash
from update.chunks.ranges import Range
from update.digest import digest_of
from update.durable import Disk, Kind, Operation
from update.errors import NoSpaceError, StoreError
from update.trust.verified import TargetCustom, TargetInfo


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


async def test_an_idle_file_is_removed_and_its_borrowers_read_on(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, content: bytes, half: Range
) -> None:
    before = open_descriptors()
    lease = await site.relays.lend(info, [half])
    assert lease is not None
    await site.relays.settle()
    assert await site.relays.evict(info.sha256)
    assert site.sparse_files == []
    assert take(lease, half) == content[half.start : half.end]
    assert open_descriptors() == before, "its bytes are free now"
    asked = upstream.bytes_asked()
    assert await site.read(info, half) == content[half.start : half.end], "whoever asks again gets it again"
    assert upstream.bytes_asked() == 2 * asked


async def test_a_file_of_an_earlier_run_is_removed_without_being_opened(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, half: Range, tmp_path: Path
) -> None:
    await site.read(info, half)
    await site.relays.close()
    again = RelaySite(tmp_path, {"plant": [upstream]})
    assert await again.relays.evict(info.sha256)
    assert again.sparse_files == []


async def test_a_file_in_use_is_not_removed(
    site: RelaySite, upstream: MemorySource, info: TargetInfo, content: bytes, half: Range
) -> None:
    upstream.gate.clear()
    for asked in (Range(0, 10), half):  # the header on its way, then chunks
        reading = asyncio.create_task(site.read(info, asked))
        await until(lambda: upstream.open > 0)
        assert not await site.relays.evict(info.sha256)
        upstream.gate.set()
        assert await reading == content[asked.start : asked.end]
        upstream.gate.clear()
    reading = asyncio.create_task(site.read(info, Range(half.end + 100_000, 10)))
    await until(lambda: upstream.open > 0)
    reading.cancel()
    await asyncio.wait([reading])
    assert not await site.relays.evict(info.sha256), "its fetches belong to the relay and go on"


async def test_a_file_whose_reader_waits_for_room_is_not_removed_to_make_it(
    site: RelaySite, info: TargetInfo, content: bytes, half: Range
) -> None:
    await site.read(info, Range(0, 10))
    await site.relays.settle()
    evicted: list[bool] = []

    async def grow(grown: TargetInfo, _needed_bytes: int) -> None:
        evicted.append(await site.relays.evict(grown.sha256))

    site.relays._grow = grow
    assert await site.read(info, half) == content[half.start : half.end]
    assert evicted == [False]


async def test_who_asks_while_a_file_is_removed_gets_a_new_one(
    site: RelaySite, info: TargetInfo, content: bytes, half: Range
) -> None:
    await site.read(info, half)
    await site.relays.settle()
    evicting = asyncio.create_task(site.relays.evict(info.sha256))
    await asyncio.sleep(0)
    assert await site.read(info, half) == content[half.start : half.end]
    assert await evicting
    assert f"{info.sha256}.zck" in site.sparse_files


async def test_a_file_that_cannot_be_removed_counts_as_in_use(site: RelaySite, info: TargetInfo, half: Range) -> None:
    await site.read(info, half)
    await site.relays.settle()

    def refuse(operation: Operation) -> None:
        if operation.kind is Kind.REMOVE:
            raise StoreError("read-only")

    site.fail = [refuse]
    assert not await site.relays.evict(info.sha256)


async def test_relayed_files_and_mirrored_ones_share_one_quota(
    tmp_path: Path, upstream: MemorySource, info: TargetInfo, content: bytes, half: Range
) -> None:
    site = RelaySite(tmp_path, {"plant": [upstream], "other": [upstream]})
    twin = TargetInfo("other", info.path, info.length, info.sha256, info.custom, "targets")
    old = TargetInfo("plant", "old.swu", 500_000, digest_of(bytes(500_000)), TargetCustom(), "targets")
    site.keep(old, bytes(500_000))
    room = Room(site.store, quota_bytes=len(content) + 100_000, reserve_bytes=0)
    relays = Relays(
        site.store.layout.sparse,
        site.disk,
        lambda _info: [upstream],
        publish=site.store.publish,
        find=site.find,
        grow=room.grow,
    )
    room.let_to(relays.evict, lambda _digest: None)
    try:
        lease = await relays.lend(twin, [Range(0, len(content))])
        assert lease is not None
        assert take(lease, half) == content[half.start : half.end]
        await relays.settle()
        assert [held.sha256 for held in site.store.held()] == [info.sha256], "the old release made room"
        await room.admit(old)
        assert site.store.held() == ()
        lease = await relays.lend(info, [half])
        assert lease is not None
        lease.release()
        await relays.settle()
        with pytest.raises(NoSpaceError):
            await room.grow(old, 10 * len(content))
        assert site.sparse_files != [], "room that cannot be made costs nothing"
    finally:
        await relays.close()


def test_after_any_power_cut_while_a_file_is_removed_no_bitmap_claims_what_is_gone(
    tmp_path: Path, zck: Path, content: bytes
) -> None:
    root, index = tmp_path / "root", index_of(zck)
    root.mkdir()
    recorder = Recorder(root)
    disk, numbers = Disk(recorder), range(len(index.header))
    sparse = SparseFile.open(disk, root / "x.zck", index)
    some = [(number, content[index.header[number].start :][: index.header[number].length]) for number in numbers]
    sparse.accept(sparse.write(some))
    sparse.commit()
    sparse.close()
    recorder.mark()
    remove(disk, root / "x.zck")
    recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        left = {path.name for path in folder.iterdir()}
        assert left != {"x.zck.map"} or state.marks == 0
        assert not left or state.marks < 2
        again = SparseFile.open(Disk(), folder / "x.zck", index)
        claimed = [number for number in numbers if again._held[number >> 3] >> (number & 7) & 1]
        assert again.read_back(claimed) == claimed
        again.close()

    assert_every_crash(recorder.trace(), check, into=tmp_path / "crash", limit=30)
