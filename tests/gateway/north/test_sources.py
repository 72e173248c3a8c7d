"""Upstreams are asked in their order, the failing one last for a while; a folder is read without anything left open."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest

from gateway.north.sources import (
    AMONG_OTHERS,
    LACKING_S,
    MAX_LACKING,
    PENALTY_S,
    FolderUpstream,
    HttpUpstream,
    Preference,
    TargetSource,
)
from gateway.simulators.characters import FAILING, s3_like
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.relays import HOLD_S
from tests.builders.relayed import everything_else_ended, open_descriptors
from update.chunks.ranges import Range
from update.digest import digest_of
from update.durable import Disk
from update.errors import NotFoundError, ProtocolError, UnreachableError, WireError
from update.store.journal import Journal
from update.store.staging import Staged
from update.trust.verified import TargetCustom, TargetInfo
from update.wire.habits import Habits
from update.wire.rate import Patience, Retry

CONTENT = bytes(range(256)) * 12_000
ONCE = Retry(attempts=1)
IMPATIENT = Patience(answer_s=3.0, window_s=3.0, minimum_bytes_per_s=1000.0)


@pytest.fixture
def folder(tmp_path: Path) -> FolderUpstream:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "x.zck").write_bytes(CONTENT)
    return FolderUpstream(tmp_path)


def test_who_failed_is_asked_last_for_a_while() -> None:
    now = [1000.0]
    a, b, c = (FolderUpstream(Path(name)) for name in "abc")
    preference = Preference([a, b, c], clock=lambda: now[0])
    assert preference.order() == (a, b, c)
    preference.failed(a)
    assert preference.order() == (b, c, a)
    now[0] += PENALTY_S / 2
    preference.failed(b)
    assert preference.order() == (c, a, b)
    now[0] += PENALTY_S / 2
    assert preference.order() == (a, c, b)
    preference.failed(a)
    preference.failed(c)
    assert preference.order() == (a, b, c), "when all fail, their configured order is as good as any"


def test_who_failed_counts_as_away_until_it_does_what_it_should() -> None:
    now = [1000.0]
    a, b = (FolderUpstream(Path(name)) for name in "ab")
    preference = Preference([a, b], clock=lambda: now[0])
    assert preference.reachable() == ("a", "b")
    preference.failed(a)
    now[0] += 10 * PENALTY_S
    assert preference.reachable() == ("b",)
    preference.failed(b)
    preference.answered(a)
    assert preference.reachable() == ("a",)


def test_a_source_of_a_target_reports_its_upstream(folder: FolderUpstream) -> None:
    other = FolderUpstream(Path("other"))
    info = TargetInfo("plant", "x.zck", len(CONTENT), digest_of(CONTENT), TargetCustom(), "targets", prefixed=False)
    preference = Preference([folder, other])
    source = TargetSource(folder, info, preference)
    source.failed()
    assert (source.name, preference.order()) == (folder.name, (other, folder))


async def read(upstream: FolderUpstream, ranges: Sequence[Range], path: str = "targets/x.zck") -> list[tuple[int, bytes]]:
    return [piece async for piece in upstream.read_ranges(path, ranges)]


async def test_a_folder_sends_exactly_what_is_asked_in_blocks(folder: FolderUpstream) -> None:
    wanted = (Range(5, 10), Range(100, 2_500_000), Range(len(CONTENT) - 1, 1))
    pieces = await read(folder, wanted)
    assert [(at, len(piece)) for at, piece in pieces] == [
        (5, 10),
        (100, 1 << 20),
        (100 + (1 << 20), 1 << 20),
        (100 + (2 << 20), 2_500_000 - (2 << 20)),
        (len(CONTENT) - 1, 1),
    ]
    assert all(CONTENT[at : at + len(piece)] == piece for at, piece in pieces)


async def test_what_a_folder_lacks_has_its_name(folder: FolderUpstream, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await read(folder, [Range(0, 1)], "targets/y.zck")
    with pytest.raises(ProtocolError):
        await read(folder, [Range(0, 1)], "targets/../../x")
    with pytest.raises(UnreachableError, match=f"ends at byte {len(CONTENT)}"):
        await read(folder, [Range(0, len(CONTENT) + 1)])


async def test_a_folder_fills_the_rest_of_a_staged_file(folder: FolderUpstream, tmp_path: Path) -> None:
    with Staged(Disk(), tmp_path / "x.part", tmp_path / "x.json", length=len(CONTENT)) as staged:
        staged.write_at(0, CONTENT[:100])
        await folder.download("targets/x.zck", staged, length=len(CONTENT))
        await folder.download("targets/x.zck", staged, length=len(CONTENT))
    assert (tmp_path / "x.part").read_bytes() == CONTENT


async def test_reading_a_folder_can_be_cancelled_at_every_step_and_leaves_nothing_open(folder: FolderUpstream) -> None:
    before = open_descriptors()
    for steps in range(60):
        reader = asyncio.create_task(read(folder, [Range(0, len(CONTENT))]))
        for _ in range(steps):
            await asyncio.sleep(0)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    async with aclosing(folder.read_ranges("targets/x.zck", [Range(0, len(CONTENT))])) as pieces:
        async for _ in pieces:
            break
    await everything_else_ended()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert open_descriptors() == before


class Upstreams:
    """Servers that hold the same target, in order, until told otherwise."""

    def __init__(self, folder: Path, stack: AsyncExitStack, session: aiohttp.ClientSession) -> None:
        self.info = TargetInfo("plant", "x.zck", len(CONTENT), digest_of(CONTENT), TargetCustom(), "targets", prefixed=False)
        self.now_s = 1000.0
        self.servers: list[UpstreamServer] = []
        self.preference = Preference([])
        self._folder, self._stack, self._session = folder, stack, session

    async def open(self, *faults: Faults) -> None:
        for number, each in enumerate(faults):
            root = self._folder / str(number)
            (root / "targets").mkdir(parents=True)
            (root / "targets" / "x.zck").write_bytes(CONTENT)
            self.servers.append(await self._stack.enter_async_context(UpstreamServer(root, faults=each)))
        first, *others = (server.url for server in self.servers)
        upstreams = [HttpUpstream(self._session, first, retry=ONCE, patience=IMPATIENT)]
        upstreams += [HttpUpstream(self._session, url, retry=ONCE) for url in others]
        self.preference = Preference(upstreams, clock=lambda: self.now_s)

    def lose(self, number: int) -> None:
        """One upstream no longer has the target."""
        (self._folder / str(number) / "targets" / "x.zck").unlink()

    def regain(self, number: int) -> None:
        """One upstream has the target again."""
        (self._folder / str(number) / "targets" / "x.zck").write_bytes(CONTENT)

    async def read(self) -> bytes | None:
        """As the relay reads: from one after the other, telling of failures; None if nobody had it."""
        for source in [TargetSource(upstream, self.info, self.preference) for upstream in self.preference.order()]:
            try:
                return b"".join([piece async for _, piece in source.read_ranges([Range(100, 50_000)])])
            except WireError:
                source.failed()
        return None

    def asked(self) -> list[int]:
        """Which upstreams were asked since the last call."""
        asked = [number for number, server in enumerate(self.servers) if server.traffic.requests]
        for server in self.servers:
            server.traffic.requests = 0
        return asked


@pytest.fixture
async def upstreams(tmp_path: Path) -> AsyncIterator[Upstreams]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        yield Upstreams(tmp_path, stack, session)


@pytest.mark.parametrize("name", [name for name in FAILING if name not in {"corrupt", "gone", "misplacing"}])
async def test_an_upstream_that_fails_is_asked_last_and_first_again_later(upstreams: Upstreams, name: str) -> None:
    """What is corrupt, only who verifies can say: the relay's tests do."""
    await upstreams.open(FAILING[name](), Faults(), Faults())
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [0, 1]
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [1]
    assert upstreams.preference.reachable() == tuple(server.url for server in upstreams.servers[1:])
    upstreams.servers[0].faults = Faults()
    upstreams.now_s += PENALTY_S
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [0]
    assert upstreams.preference.reachable() == tuple(server.url for server in upstreams.servers)


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.GONE])
async def test_an_upstream_that_lacks_one_target_keeps_its_place_for_others(upstreams: Upstreams, status: HTTPStatus) -> None:
    await upstreams.open(Faults(status=status), Faults())
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [0, 1]
    assert [upstream.name for upstream in upstreams.preference.order()] == [server.url for server in upstreams.servers]


async def test_what_an_upstream_lacks_it_is_not_asked_for_again_at_once(upstreams: Upstreams) -> None:
    await upstreams.open(Faults(), Faults())
    upstreams.lose(0)
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [0, 1]
    assert await asyncio.gather(*(upstreams.read() for _ in range(20))) == [CONTENT[100:50_100]] * 20
    assert upstreams.asked() == [1]
    upstreams.regain(0)
    upstreams.now_s += LACKING_S
    assert await upstreams.read() == CONTENT[100:50_100]
    assert upstreams.asked() == [0]


async def test_what_all_upstreams_lack_costs_none_of_them_a_storm(upstreams: Upstreams) -> None:
    await upstreams.open(Faults(), Faults())
    upstreams.lose(0)
    upstreams.lose(1)
    assert await upstreams.read() is None
    assert upstreams.asked() == [0, 1]
    assert await asyncio.gather(*(upstreams.read() for _ in range(20))) == [None] * 20
    assert upstreams.asked() == []
    upstreams.now_s += LACKING_S
    assert await upstreams.read() is None
    assert upstreams.asked() == [0, 1]


async def test_an_upstream_that_lacked_a_target_once_can_still_fail(upstreams: Upstreams) -> None:
    await upstreams.open(Faults(status=HTTPStatus.NOT_FOUND), Faults())
    await upstreams.read()
    upstreams.servers[0].faults = Faults(status=HTTPStatus.SERVICE_UNAVAILABLE)
    upstreams.now_s += LACKING_S
    await upstreams.read()
    assert [upstream.name for upstream in upstreams.preference.order()] == [server.url for server in upstreams.servers[::-1]]


def test_only_so_much_of_what_is_lacking_is_remembered() -> None:
    upstream, preference = FolderUpstream(Path("a")), Preference([])
    for number in range(MAX_LACKING + 1):
        preference.note_lack(upstream, f"targets/{number}")
    lacking = [preference.lacks(upstream, f"targets/{number}") for number in (0, 1, MAX_LACKING)]
    assert lacking == [False, True, True]


async def test_when_all_fail_they_are_asked_in_their_order_at_the_next_time(upstreams: Upstreams) -> None:
    await upstreams.open(Faults(reset=True), Faults(status=HTTPStatus.SERVICE_UNAVAILABLE), Faults())
    for _ in range(3):
        assert await upstreams.read() == CONTENT[100:50_100]
    upstreams.servers[2].faults = Faults(reset=True)
    upstreams.servers[0].faults = Faults()
    upstreams.asked()
    assert await upstreams.read() == CONTENT[100:50_100]
    assert 0 in upstreams.asked()


def test_a_silent_upstream_among_others_is_left_while_a_client_is_still_held() -> None:
    patience = AMONG_OTHERS.patience
    assert AMONG_OTHERS.retry.attempts * max(patience.answer_s, patience.window_s) <= HOLD_S / 2


async def test_habits_of_an_upstream_outlive_its_reader(tmp_path: Path, upstreams: Upstreams) -> None:
    await upstreams.open(s3_like())
    journal = Journal(Disk(), tmp_path / "habits.json")
    wanted = [Range(at, 100) for at in range(0, 1_000_000, 50_000)]
    traffic = upstreams.servers[0].traffic
    for requests in (20 + 2, 20):
        traffic.requests = 0
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            upstream = HttpUpstream(session, upstreams.servers[0].url, retry=ONCE, habits=Habits(journal))
            found = {at: piece async for at, piece in upstream.read_ranges("targets/x.zck", wanted)}
        assert found == {span.start: CONTENT[span.start : span.end] for span in wanted}
        assert traffic.requests == requests
