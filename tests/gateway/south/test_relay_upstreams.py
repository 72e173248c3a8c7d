"""The relay over real HTTP against servers that lie, cut, go on without end, or take no ranges."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import pytest

from gateway.north.sources import FolderUpstream, HttpUpstream, Preference, TargetSource, Upstream
from gateway.simulators.characters import FAILING, LIMITED, announcing_too_little, announcing_too_much, cutting
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.besides import SpareRoom
from gateway.south.relay import RelayedFile
from gateway.south.relays import Relays
from gateway.south.sparse import SparseFile
from tests.builders.relay_site import take
from tests.builders.relayed import body_of, index_of, info_of, make_zck, open_descriptors
from update.chunks.ranges import Range
from update.durable import Disk, Kind, Operation
from update.errors import NoSpaceError, UnreachableError
from update.store.store import Store
from update.trust.verified import TargetInfo
from update.wire.habits import Habits
from update.wire.rate import Retry
from update.wire.session import wan_session


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


IMPATIENT = Retry(attempts=2, sleep=no_pause)
SLOW = {"hesitant", "dripping"}
HARMLESS = [
    Faults(ignore_ranges=True),
    Faults(ignore_ranges=True, endless=True),
    Faults(ignore_ranges=True, flip_byte=True),  # a byte of the header, which nobody asked for
    Faults(first_range_only=True),
    Faults(cut_after_bytes=90_000),
    Faults(size_off_by=5),
    *(character() for character in LIMITED.values()),
    cutting(),
    announcing_too_much(),
]
HARMFUL = [
    Faults(flip_byte=True),
    Faults(place_off_by=1),
    Faults(place_off_by=-1, flip_byte=True),
    Faults(endless=True, flip_byte=True),
    Faults(cut_after_bytes=0),
    Faults(cut_after_bytes=20),
    *(FAILING[name]() for name in sorted(FAILING.keys() - SLOW)),
]


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


class Lan:
    """One `.zck` on several upstream servers, in order."""

    def __init__(self, root: Path, zck: Path, stack: AsyncExitStack) -> None:
        self.info: TargetInfo = info_of(zck)
        self._root, self._stack = root, stack
        self.file = root / self.info.wire_path
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(zck.read_bytes())
        self._session = wan_session()
        self.servers: list[UpstreamServer] = []
        self.habits = Habits()

    async def sources(self, *faults: Faults, folder: bool = False) -> list[TargetSource]:
        upstreams: list[Upstream] = [await self._server(each) for each in faults]
        if folder:
            upstreams.append(FolderUpstream(self._root))
        preference = Preference(upstreams)
        return [TargetSource(upstream, self.info, preference) for upstream in upstreams]

    async def _server(self, faults: Faults) -> HttpUpstream:
        server = await self._stack.enter_async_context(UpstreamServer(self._root, faults=faults))
        self.servers.append(server)
        return HttpUpstream(self._session, server.url, retry=IMPATIENT, habits=self.habits)

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture
async def lan(tmp_path: Path, zck: Path) -> AsyncIterator[Lan]:
    async with AsyncExitStack() as stack:
        opened = Lan(tmp_path / "root", zck, stack)
        yield opened
        await opened.close()


async def always(_needed_bytes: int) -> bool:
    return True


async def never(_needed_bytes: int) -> bool:
    return False


async def relayed(lan: Lan, folder: Path, sources: list[TargetSource], zck: Path) -> bytes:
    """Every third chunk, then everything."""
    file = RelayedFile(SparseFile.open(Disk(), folder / "x.zck", index_of(zck)), spare_room=always)
    try:
        scattered = [Range(chunk.start, chunk.length) for chunk in list(index_of(zck).header)[::3]]
        await file.ensure(scattered, sources)
        await file.ensure([body_of(zck)], sources)
        return file.sparse.path.read_bytes()
    finally:
        await file.close()


@pytest.mark.parametrize("faults", HARMLESS, ids=repr)
async def test_a_limited_upstream_is_enough(lan: Lan, tmp_path: Path, zck: Path, faults: Faults) -> None:
    assert await relayed(lan, tmp_path, await lan.sources(faults), zck) == zck.read_bytes()


@pytest.mark.parametrize("name", sorted(LIMITED.keys() - {"without-ranges"}))
async def test_once_it_is_known_each_kind_of_upstream_sends_the_union_once(
    lan: Lan, tmp_path: Path, zck: Path, name: str
) -> None:
    sources = await lan.sources(LIMITED[name]())
    header = index_of(zck).header
    wishes = [[Range(chunk.start, chunk.length) for chunk in list(header)[first::6]] for first in (1, 2, 4)]
    for folder in (tmp_path / "first", tmp_path / "second", tmp_path / "third"):
        lan.servers[0].traffic.bodies.clear()
        folder.mkdir()
        file = RelayedFile(SparseFile.open(Disk(), folder / "x.zck", index_of(zck)))
        try:
            for wanted in wishes:
                await file.ensure(wanted, sources)
        finally:
            await file.close()
    union = sum(span.length for wanted in wishes for span in wanted)
    sent = sum(part.length for parts in lan.servers[0].traffic.bodies.values() for part in parts)
    assert (sent, lan.servers[0].traffic.repeated_bytes()) == (union, 0)


async def test_an_upstream_that_only_sends_whole_files_costs_the_file_once(lan: Lan, tmp_path: Path) -> None:
    sources, zck = await lan.sources(Faults(ignore_ranges=True)), make_zck(tmp_path, blocks=3000)
    lan.file.write_bytes(zck.read_bytes())
    file = RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)), spare_room=always)
    try:
        for _ in range(2):  # as the relay does to get the header, and by which the upstream is known
            async for _ in sources[0].read_ranges([Range(0, 100)]):
                pass
        traffic = lan.servers[0].traffic
        traffic.bodies.clear()
        chunks = list(index_of(zck).header)
        async with asyncio.timeout(20):
            await asyncio.gather(*(file.ensure([Range(chunk.start, 1)], sources) for chunk in chunks[:20:3]))
            await file.settle()
        assert file.sparse.complete
        assert file.sparse.path.read_bytes() == zck.read_bytes()
        assert traffic.bodies
        assert traffic.repeated_bytes() == 0
    finally:
        await file.close()


@pytest.mark.parametrize("room", [never, None])
async def test_without_room_nothing_is_kept_that_nobody_asked_for(
    lan: Lan, tmp_path: Path, zck: Path, room: SpareRoom | None
) -> None:
    sources, index = await lan.sources(Faults(ignore_ranges=True)), index_of(zck).header
    file = RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)), spare_room=room)
    try:
        for number in (5, 9, 12):
            await file.ensure([Range(index[number].start, 1)], sources)
        await file.settle()
        assert [number for number in range(len(index)) if file.sparse.holds(number) and index[number].length] == [5, 9, 12]
    finally:
        await file.close()


async def test_a_full_disk_ends_only_what_nobody_asked_for(lan: Lan, tmp_path: Path, zck: Path) -> None:
    sources, index = await lan.sources(Faults(ignore_ranges=True)), index_of(zck).header

    def full(operation: Operation) -> None:
        if operation.kind is Kind.WRITE and operation.offset > index[20].start:
            raise NoSpaceError("the disk is full")

    file = RelayedFile(SparseFile.open(Disk(full), tmp_path / "x.zck", index_of(zck)), spare_room=always)
    try:
        for number in (1, 2, 5):
            await file.ensure([Range(index[number].start, 1)], sources)
        await file.settle()
        assert file.sparse.holds(5)
        assert not file.sparse.holds(21)
    finally:
        await file.close()


async def test_what_comes_unasked_and_wrong_is_not_kept(lan: Lan, tmp_path: Path, zck: Path) -> None:
    index, content = index_of(zck).header, bytearray(zck.read_bytes())
    wrong = index[len(index) // 2]
    content[wrong.start] ^= 1
    sources = await lan.sources(Faults(ignore_ranges=True))
    lan.file.write_bytes(content)
    file = RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)), spare_room=always)
    try:
        for number in (1, 2, 5):
            await file.ensure([Range(index[number].start, 1)], sources)
        await file.settle()
        assert [number for number in range(len(index)) if not file.sparse.holds(number)] == [wrong.index]
    finally:
        await file.close()


@pytest.mark.parametrize("faults", HARMFUL, ids=repr)
async def test_a_lying_upstream_alone_is_refused_and_nothing_of_it_is_kept(
    lan: Lan, tmp_path: Path, zck: Path, faults: Faults
) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(UnreachableError):
            await relayed(lan, tmp_path, await lan.sources(faults), zck)
    kept = SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck))
    claimed = kept.unproved(range(len(kept.index)))
    assert kept.read_back(claimed) == claimed
    assert len(claimed) < len(kept.index)
    kept.close()


@pytest.mark.parametrize("folder", [False, True], ids=["server", "folder"])
@pytest.mark.parametrize("faults", HARMFUL, ids=repr)
async def test_behind_a_lying_upstream_the_next_one_is_enough(
    lan: Lan, tmp_path: Path, zck: Path, faults: Faults, *, folder: bool
) -> None:
    sources = await lan.sources(faults, folder=True) if folder else await lan.sources(faults, Faults())
    assert await relayed(lan, tmp_path, sources, zck) == zck.read_bytes()


async def test_an_upstream_that_lacks_the_file_is_told_apart_from_one_that_fails(
    lan: Lan, tmp_path: Path, zck: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Failover is on error and not on 404: it keeps its place, and is asked once however many ask."""
    lacking, having = await lan.sources(Faults(status=HTTPStatus.NOT_FOUND), Faults())
    file = RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)))
    try:
        for chunk in list(index_of(zck).header)[:10]:
            await file.ensure([Range(chunk.start, 1)], [lacking, having])
    finally:
        await file.close()
    assert lan.servers[0].traffic.requests == 1
    assert lacking.preference.order()[0] is lacking.upstream
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_any_clients_over_any_upstreams_get_right_bytes_or_a_named_refusal(lan: Lan, tmp_path: Path, zck: Path) -> None:
    """Everything at once: readers with random ranges, some of which go away, while the upstreams change their manners."""
    dice, content = random.Random(11), zck.read_bytes()
    sources = await lan.sources(*[Faults() for _ in range(3)])
    store = Store(Disk(), tmp_path / "store")
    relays = Relays(store.layout.sparse, Disk(), lambda _: sources, publish=store.publish, find=store.find, spare=always)
    outcomes = {"right": 0, "refused": 0, "gone": 0}

    async def reader(seed: int) -> None:
        own = random.Random(seed)
        for _ in range(12):
            start = own.randrange(len(content) - 1)
            span = Range(start, min(own.choice([1, 5000, 100_000]), len(content) - start))
            for server in lan.servers:
                server.faults = own.choice([*HARMLESS, *HARMFUL, announcing_too_little(), Faults()])
            try:
                async with asyncio.timeout(own.choice([0.002, 30])):
                    lease = await relays.lend(lan.info, [span])
            except UnreachableError:
                outcomes["refused"] += 1
            except TimeoutError:
                outcomes["gone"] += 1
            else:
                outcomes["right"] += 1
                assert lease is None or take(lease, span) == content[span.start : span.end]

    async with asyncio.timeout(60):
        await asyncio.gather(*(reader(dice.randrange(1 << 30)) for _ in range(20)))
        await relays.close()
    assert outcomes["right"] > 0, outcomes
    await lan.close()
    assert not [name for name in open_descriptors() if name.endswith(".zck")]
