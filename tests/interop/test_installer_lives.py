"""A whole life of the agent whose installer is the real swupdate or the real rauc: from an order to its end, over restarts.

Real are: agent, steps, TUF client, bundles' proofs, floor, journal, reports, driver, and what it drives. The assigner and the
gateway's bytes are in memory, and the power switch is the board's.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node_agent.agent import Agent, Pace, Turn
from node_agent.config import PatchesSection
from node_agent.content import Content, Pinned, Place
from node_agent.drivers.driver import SlotState
from node_agent.health import Health, Patience
from node_agent.hooks import Hooks
from node_agent.record import Report
from node_agent.reports import Reports
from node_agent.source import Offer
from node_agent.states import Outcome, State
from node_agent.steps import Steps
from tests.builders.bundles import DEMO, cms_policy
from tests.builders.keys import NOW
from tests.builders.repository import RepositoryBuilder
from tests.contract.devices import Device
from tests.contract.kinds import KINDS, Releases
from tests.contract.rauc_devices import POLICY
from tests.interop.rauc_tool import COMPATIBLE
from update.bundle.rauc_rules import ANY_REVISION, NO_VARIANT
from update.chunks.pair import PatchOffer
from update.digest import Digest, digest_of
from update.durable import Disk
from update.identity import Hardware
from update.store.journal import Journal
from update.store.staging import Staged
from update.trust.client import Fetcher
from update.trust.floor import Floor
from update.trust.verified import TargetCustom

REPOSITORY = "plant"
INSTALLERS = [pytest.param(name, marks=KINDS[name].marks) for name in ("swupdate", "rauc")]
HARDWARE: Mapping[str, tuple[Hardware, str]] = {
    "swupdate": (DEMO, str(DEMO)),
    "rauc": (Hardware(COMPATIBLE, NO_VARIANT), f"{COMPATIBLE}:{ANY_REVISION}"),
}
_MOST_TURNS = 12


@dataclass
class Site:
    """One node with one installer. `ill`: versions that fail their checks; `mute`: versions that do not come up at all."""

    kind: str
    device: Device
    releases: Releases
    repository: RepositoryBuilder = field(default_factory=lambda: RepositoryBuilder(now=NOW))
    orders: list[Offer] = field(default_factory=list)
    results: list[Report] = field(default_factory=list)
    ill: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()

    def order(self, version: int) -> None:
        """Publish a release, and want it here."""
        file = self.releases(version).bundle.file
        content, name = file.read_bytes(), f"os-{version}{file.suffix}"
        custom = TargetCustom((HARDWARE[self.kind][1],), f"{version}.0", version, version)
        self.repository.add_target(name, content, custom.as_json())
        self.repository.publish()
        self.orders.append(Offer(f"action-{version}", version, REPOSITORY, name, digest_of(content), len(content)))

    async def live(self) -> None:
        """Go on over restarts until nothing is left to do."""
        for _ in range(_MOST_TURNS):
            running = next(slot for slot in await self.device.driver.slots() if slot.booted)
            if running.trial and running.version in self.mute:
                self.device.board.power_on()
                continue
            turn = await self.process()
            if turn is Turn.NOTHING:
                return
            if turn is Turn.EXIT:
                self.device.board.power_on()
        raise AssertionError("the node does not come to rest")

    async def process(self) -> Turn:
        """One process of the agent, to its end."""
        agent = self.agent()
        turn = await agent.turn()
        while turn is Turn.ENDED:
            turn = await agent.turn()
        return turn

    def agent(self) -> Agent:
        disk, state = Disk(), self.device.folder / "node"
        disk.make_folder(state)
        floor = Floor(disk, (state / "floor-1/floor", state / "floor-2/floor"))
        if not floor.exists():
            floor.create(NOW)
        place = Place(state, HARDWARE[self.kind][0], lambda: NOW)
        pinned = Pinned(REPOSITORY, self.repository.root_bytes, cms_policy(), rauc=POLICY)
        content = Content([pinned], self, place, disk=disk, floor=floor)
        health, trial = Health([self], Patience(0.05 if self.ill else 60, 0.1, 1)), Journal(disk, state / "trial.json")
        return Agent(
            node="n1",
            journal=Journal(disk, state / "journal.json"),
            steps=Steps(self.device.driver, content, health, Hooks(), floor, trial),
            source=self,
            reports=Reports(Journal(disk, state / "reports.json"), now_ms=lambda: 1),
            pace=Pace(soon_s=60, look_s=60, tell_s=60, retry_s=0),
        )

    def floor(self) -> int:
        state = self.device.folder / "node"
        return Floor(Disk(), (state / "floor-1/floor", state / "floor-2/floor")).read().security_counter

    # As `Source`

    async def next(self) -> Offer | None:
        ended = {report.action for report in self.results}
        return next((order for order in self.orders if order.action not in ended), None)

    async def report(self, report: Report) -> None:
        if report.final:
            self.results.append(report)

    # As a health check

    name = "application"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        return "it does not answer" if environment["FIELDRELAY_VERSION"] in self.ill else None

    # As `Transport`

    def fetcher(self, repository: str) -> Fetcher:
        assert repository == REPOSITORY
        return self.repository.fetcher()

    async def download(self, repository: str, path: str, staged: Staged, progress: Callable[[int, int], None]) -> None:
        del repository
        data = self.repository.files[path]
        staged.write_at(staged.size(), data[staged.size() :])
        staged.sync()
        progress(len(data), len(data))

    async def read_ranges(
        self, repository: str, path: str, ranges: Sequence[tuple[int, int]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        assert not ranges, f"chunks of {path} of {repository} are asked for"
        for start, length in ranges:
            yield start, bytes(length)

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        raise AssertionError(f"a patch of {path} of {repository} from {base} within {limits} is asked for")

    def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        raise AssertionError(f"{repository} {path} {base} {offer} {limits}: no patch was offered")


@pytest.fixture(params=INSTALLERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    kind = KINDS[request.param]
    (tmp_path / "releases").mkdir()
    releases = kind.supply(tmp_path / "releases")
    with ExitStack() as stack:
        yield Site(request.param, kind.maker(stack, releases)(tmp_path), releases)


async def _running(site: Site) -> tuple[str, str | None, SlotState]:
    slot = next(slot for slot in await site.device.driver.slots() if slot.booted)
    return slot.name, slot.version, slot.state


async def test_a_release_is_fetched_installed_tried_and_confirmed_and_the_next_one_goes_into_the_other_slot(site: Site) -> None:
    for version in (2, 3):
        site.order(version)
        await site.live()
    assert [report.outcome for report in site.results] == [Outcome.CONFIRMED, Outcome.CONFIRMED]
    assert (await _running(site), site.floor()) == (("a", "3.0", SlotState.ACTIVE), 3)
    assert {site.device.board.power_on() for _ in range(3)} == {"a"}


async def test_a_release_that_fails_its_checks_is_rolled_back(site: Site) -> None:
    site.ill = frozenset({"2.0"})
    site.order(2)
    await site.live()
    (result,) = site.results
    assert (result.outcome, result.state) == (Outcome.ROLLED_BACK, State.REPORTING)
    assert "it does not answer" in result.message
    assert ((await _running(site))[0], site.floor()) == ("a", 0)
    assert [slot.state for slot in await site.device.driver.slots()] == [SlotState.ACTIVE, SlotState.BAD]


async def test_a_release_that_never_comes_up_is_left_by_the_bootloader_and_the_next_one_succeeds(site: Site) -> None:
    site.mute = frozenset({"2.0"})
    site.order(2)
    await site.live()
    assert ([report.outcome for report in site.results], (await _running(site))[0]) == ([Outcome.ROLLED_BACK], "a")
    site.order(3)
    await site.live()
    assert ([report.outcome for report in site.results][1:], await _running(site)) == (
        [Outcome.CONFIRMED],
        ("b", "3.0", SlotState.ACTIVE),
    )


async def test_an_agent_that_ends_while_it_writes_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, write = asyncio.Event(), site.device.driver.write

    async def write_and_stay(*arguments: object) -> object:
        entered.set()
        await write(*arguments)  # type: ignore[arg-type]  # handed on as they are
        return await asyncio.Event().wait()

    site.order(2)
    with monkeypatch.context() as patch:
        patch.setattr(type(site.device.driver), "write", lambda _self, *arguments: write_and_stay(*arguments))
        first = asyncio.create_task(site.process())
        await entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert site.agent().entry.state is State.WRITING
    await site.live()
    assert ([report.outcome for report in site.results], (await _running(site))[0]) == ([Outcome.CONFIRMED], "b")
