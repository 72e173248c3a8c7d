"""A whole node in one folder, and a way to stop it anywhere: at every durable operation and at every call to its neighbours.

    world = World.commission(folder, supplies, Behaviour.GOOD)
    points = await world.walk()                    # an undisturbed life; every place where it could have been stopped
    await world.walk(stop_at=point)                # raises Stopped there
    world.lose_power()                             # what no sync confirmed is gone
    await world.walk()                             # the boot script starts a slot, the agent resumes

Real are: agent, steps, TUF client, bundles, floor, journal, queue of reports, Linux driver, slots, boot script. The
assigner and the gateway's bytes are in memory.
"""

import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from node_agent.agent import Agent, Pace, Turn
from node_agent.bootloaders import simulated
from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.simulated import SimulatedBootloaderConfig, SimulatedEnvironment
from node_agent.config import PatchesSection
from node_agent.content import Content, Pinned, Place
from node_agent.countdown import Countdown
from node_agent.drivers.driver import ChunkSource, Restart, SlotStatus, Surroundings, Written
from node_agent.drivers.linux import LinuxDriver
from node_agent.health import Health, Patience
from node_agent.hooks import Hooks
from node_agent.record import Report, entry_from_mapping
from node_agent.reports import Reports
from node_agent.source import Offer
from node_agent.states import Outcome, State
from node_agent.steps import Steps
from tests.builders.bundles import DEMO, cms_policy
from tests.builders.keys import NOW
from tests.builders.repository import RepositoryBuilder
from tests.contract import devices
from tests.contract.boards import Board
from tests.crash.deciding import HOLD_S, Decision, Release
from tests.crash.tripwire import Point, Tripwire
from tests.disk_model import ROOT, Model
from tests.replay import Recorder
from update.bundle.verified import AnyBundle
from update.chunks.pair import PatchOffer
from update.digest import Digest, digest_of
from update.durable import Disk
from update.store.journal import Journal
from update.store.staging import Staged
from update.trust.client import Fetcher
from update.trust.floor import Floor
from update.trust.verified import TargetCustom

REPOSITORY = "repository.example"


class Behaviour(StrEnum):
    """What the new version does."""

    GOOD = "good"
    UNHEALTHY = "unhealthy"  # it comes up and fails its checks
    MUTE = "mute"  # it never comes up: the boot script has to give it up
    COMMITTED = "committed"  # it is good, and one of several devices: it is prepared, held, and then kept
    ABORTED = "aborted"  # the same, but all go back
    LOST = "lost"  # the same, but the gateway is lost while it holds, and the time of the hold runs out


DECISIONS = {Behaviour.COMMITTED: Decision.COMMIT, Behaviour.ABORTED: Decision.ABORT, Behaviour.LOST: Decision.LOST}


class Supplies:
    """Releases and the repository that lists them; made once, since keys and images are slow."""

    def __init__(self, folder: Path) -> None:
        self.releases = {version: devices.make_release(folder, version) for version in (2, 3, 4)}
        self.repository = RepositoryBuilder(now=NOW)
        self.offers: dict[int, Offer] = {}
        for version, release in self.releases.items():
            content = release.bundle.file.read_bytes()
            custom = TargetCustom((str(DEMO),), f"{version}.0", version, 1).as_json()
            self.repository.add_target(f"os-{version}.swu", content, custom)
            order = Offer(f"action-{version}", 100 * version, REPOSITORY, f"os-{version}.swu", digest_of(content), len(content))
            self.offers[version] = order
        self.repository.publish()

    def version_in(self, folder: Path, slot: str) -> int | None:
        """Which version a slot holds completely."""
        kernel, root = (devices.slot_path(folder, slot, part).read_bytes() for part in ("kernel", "root"))
        for version in (1, *self.releases):
            if root.startswith(devices.make_root(version)) and kernel.startswith(devices.make_kernel(version)):
                return version
        return None


@dataclass
class World:
    """What survives a crash: the folder. `results` is what the assigner was told in the end, by action.

    The versions of `plan` are ordered one after the other; `behaviour` is that of version 2.
    """

    folder: Path
    supplies: Supplies
    behaviour: Behaviour
    plan: tuple[int, ...] = (2, 3)
    results: dict[str, set[tuple[str, Outcome | None]]] = field(default_factory=dict)
    recorder: Recorder | None = None
    running: str = "a"
    time_s: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.release = Release(DECISIONS[self.behaviour]) if self.behaviour in DECISIONS else None

    @classmethod
    def commission(cls, folder: Path, supplies: Supplies, behaviour: Behaviour) -> "World":
        """A new node that runs version 1 in slot a."""
        devices.linux_device(folder, Disk())
        disk = Disk()
        disk.make_folder(folder / "state")
        Floor(disk, _floor_copies(folder)).create(NOW)
        return cls(folder, supplies, behaviour)

    @property
    def wanted(self) -> int | None:
        """The first version of the plan whose end was not yet reported."""
        return next((each for each in self.plan if self.supplies.offers[each].action not in self.results), None)

    async def walk(self, stop_at: Point | None = None) -> list[Point]:
        """Start the device and let it go on until nothing is left to do."""
        self.recorder = Recorder(self.folder)
        wire = Tripwire(stop_at, self.recorder)
        for _ in range(15):
            if self.behaviour is Behaviour.MUTE and self.running_version() == 2:
                self.power_on()
                continue
            turn = await self._live(wire)
            if turn is Turn.NOTHING:
                return wire.seen
            if turn is Turn.EXIT:
                self.power_on()
        raise AssertionError(f"the node does not come to rest: {wire.seen[-1]}")

    def power_on(self) -> str:
        """What the boot script does."""
        self.running = self._board(Disk(self.recorder) if self.recorder else Disk()).power_on()
        return self.running

    def lose_power(self) -> None:
        """Leave on the disk what its file system promises, and nothing of what was not synced."""
        assert self.recorder is not None
        trace = self.recorder.trace()
        model = Model(trace.start)
        for step in trace.steps:
            model.apply(step)
        shutil.rmtree(self.folder)
        _materialise(model, ROOT, self.folder)

    def running_version(self) -> int | None:
        """What the running slot holds; None would be a broken device."""
        return self.supplies.version_in(self.folder, self.running)

    def is_ill(self) -> bool:
        """Whether the version that runs will fail its checks."""
        return self.behaviour is Behaviour.UNHEALTHY and self.running_version() == 2

    async def slots(self) -> Mapping[str, SlotStatus]:
        """The slots at rest."""
        return {slot.name: slot for slot in await self._driver(Disk()).slots()}

    def journal(self) -> State:
        """The state in the journal."""
        return entry_from_mapping(Journal(Disk(), self.folder / "state/journal.json").read()).state

    async def _live(self, wire: Tripwire) -> Turn:
        """One process of the agent, to its end."""
        wire.state = lambda: "starting"
        disk = Disk(wire.operation)
        transport = _Gateway(self, wire)
        place = Place(self.folder / "state", DEMO, lambda: NOW)
        floor = Floor(disk, _floor_copies(self.folder))
        pinned = Pinned(REPOSITORY, self.supplies.repository.root_bytes, cms_policy())
        content = Content([pinned], transport, place, disk=disk, floor=floor)
        trial = Journal(disk, self.folder / "state/trial.json")
        steps = Steps(_Watched(self._driver(disk), wire), content, self._health(wire), Hooks(), floor, trial)
        agent = Agent(
            node="n1",
            journal=Journal(disk, self.folder / "state/journal.json"),
            steps=steps,
            source=_Assigner(self, wire),
            reports=Reports(Journal(disk, self.folder / "state/reports.json"), now_ms=lambda: 1),
            pace=Pace(soon_s=60, look_s=60, tell_s=60, retry_s=0),
            countdown=Countdown(lambda: int(self.time_s * 1000), lambda: self.time_s),
        )
        wire.state = lambda: agent.entry.state
        turn = await agent.turn()
        while turn in {Turn.ENDED, Turn.HELD}:
            self.time_s += HOLD_S / 2 if turn is Turn.HELD else 0
            turn = await agent.turn()
        return turn

    def _health(self, wire: Tripwire) -> Health:
        """Patient with whatever will be well, so that a busy machine decides nothing."""
        return Health([_Checks(self, wire)], Patience(0.05 if self.is_ill() else 60, 0.1, 1))

    def _driver(self, disk: Disk) -> LinuxDriver:
        board = self._board(disk)
        surroundings = Surroundings(disk, self.folder / "state", DEMO, board.bootloader)
        return LinuxDriver(devices.linux_config(self.folder), surroundings)

    def _board(self, disk: Disk) -> Board:
        config = SimulatedBootloaderConfig(self.folder / "environment", CommandLine(self.folder / "cmdline"))
        environment = SimulatedEnvironment(config.environment, disk)
        return Board(simulated.create(config, disk), environment, config.command_line.path, config.environment)


@dataclass
class _Assigner:
    """`Source`: orders one version until its end was reported."""

    world: World
    wire: Tripwire

    async def next(self) -> Offer | None:
        self.wire.reach("assigner.next")
        wanted = self.world.wanted
        if wanted is None:
            return None
        offer, release = self.world.supplies.offers[wanted], self.world.release
        return offer if release is None or wanted != 2 else release.order(offer)

    async def report(self, report: Report) -> None:
        self.wire.reach("assigner.report")
        if self._ends(report):
            self.world.results.setdefault(report.action, set()).add((report.id, report.outcome))
        self.wire.reach("assigner.reported")

    def _ends(self, report: Report) -> bool:
        release = self.world.release
        if release is None or report.action != self.world.supplies.offers[2].action:
            return report.final
        return release.told(report)


@dataclass
class _Checks:
    """The health check of the new version."""

    world: World
    wire: Tripwire
    name: str = "application"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        self.wire.reach("health")
        assert environment["FIELDRELAY_SLOT"] == self.world.running
        return "it does not answer" if self.world.is_ill() else None


@dataclass
class _Gateway:
    """`Transport` from memory, in pieces."""

    world: World
    wire: Tripwire

    def fetcher(self, repository: str) -> Fetcher:
        assert repository == REPOSITORY
        return _Metadata(self.world.supplies.repository.fetcher(), self.wire)

    async def download(self, repository: str, path: str, staged: Staged, progress: Callable[[int, int], None]) -> None:
        data = self.world.supplies.repository.files[path]
        for offset in range(staged.size(), len(data), 50_000):
            self.wire.reach("gateway.download")
            staged.write_at(offset, data[offset : offset + 50_000])
            staged.sync()
            progress(offset, len(data))

    async def read_ranges(
        self, repository: str, path: str, ranges: Sequence[tuple[int, int]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        assert self.world.wanted is not None
        chunks = self.world.supplies.releases[self.world.wanted].chunks
        async for piece in replace(chunks, asked=[], sent=0).read_ranges(f"http://{repository}/{path}", ranges):
            self.wire.reach("gateway.chunk")
            yield piece

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        del repository, path, base, limits
        return None

    def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        raise AssertionError(f"{repository} {path} {base} {offer} {limits}: no patch was offered")


@dataclass
class _Metadata:
    inner: Fetcher
    wire: Tripwire

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        self.wire.reach("gateway.metadata")
        return await self.inner.fetch(path, max_bytes=max_bytes)


class _Watched:
    """A driver whose every word is a place to stop, before and after."""

    def __init__(self, driver: LinuxDriver, wire: Tripwire) -> None:
        self._driver = driver
        self._wire = wire
        self.capabilities = driver.capabilities

    async def slots(self) -> tuple[SlotStatus, ...]:
        self._wire.reach("driver.slots")
        return await self._driver.slots()

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Callable[[int, int], None]) -> Written:
        self._wire.reach("driver.write")
        written = await self._driver.write(bundle, chunks, progress)
        self._wire.reach("driver.write done")
        return written

    async def activate(self) -> None:
        self._wire.reach("driver.activate")
        await self._driver.activate()
        self._wire.reach("driver.activate done")

    async def restart(self) -> Restart:
        self._wire.reach("driver.restart")
        return await self._driver.restart()

    async def confirm(self) -> None:
        self._wire.reach("driver.confirm")
        await self._driver.confirm()
        self._wire.reach("driver.confirm done")

    async def revert(self) -> None:
        self._wire.reach("driver.revert")
        await self._driver.revert()
        self._wire.reach("driver.revert done")


def _floor_copies(folder: Path) -> tuple[Path, Path]:
    return folder / "state/floor-1/floor", folder / "state/floor-2/floor"


def _materialise(model: Model, folder: int, place: Path) -> None:
    """Build what is durable below `folder`, at `place`."""
    place.mkdir()
    for name, inode in model.durable[folder].items():
        if inode in model.files:
            (place / name).write_bytes(model.files[inode].durable)
        else:
            _materialise(model, inode, place / name)
