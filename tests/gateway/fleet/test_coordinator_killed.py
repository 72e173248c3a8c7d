"""Coordinated releases of eight faulty devices, with the coordinator killed before and after everything that it writes.

Each run draws devices, order, faults, quorums and interlocks from its number. The coordinator is killed at every point of its
journal: each of its transactions is first lost, and when it is done again, the coordinator dies right after it. What must
hold is checked after everything that any device or the coordinator does.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import cast

import pytest

from gateway.database import engine
from gateway.database.coordinated import Coordination, Course, Decision, Ending, Member, Phase, Quorum
from gateway.database.engine import Database, Transaction, sqlite_url
from gateway.database.queries import actions, coordinations
from gateway.database.records import Action, ClientKind, Commit
from gateway.fleet.carrying_out import Hand
from gateway.fleet.coordinator import Coordinator
from gateway.fleet.nodes import release_of
from gateway.fleet.presence import Presence
from gateway.fleet.progress import Progress
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, bundle, register_as
from tests.builders.line import FOREVER_BAD, Fault, SimulatedMember
from update.plans.plan import Deadlines, Lost

DEVICES = 8
TICK_S = 30
MOST_TICKS = 2000
RUNS = [
    pytest.param(range(50), id="some", marks=pytest.mark.timeout(900)),
    pytest.param(range(50, 1050), id="many", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
]
_DEADLINES = Deadlines(prepare_s=600, activate_s=150, test_s=150, commit_s=300, revert_s=400, hold_s=500)
_OLD, _NEW = release_of(bundle("1.1", "board:1")), release_of(bundle("1.2", "board:1"))

_TELLING = (Fault.REFUSE, Fault.REFUSE, Fault.HOLD, Fault.CONFIRM, Fault.TEST)
"""Faults that try most of what a coordinator can do: drawn more often."""


class KilledError(Exception):
    """The coordinator's process is gone."""


@dataclass(slots=True)
class Mortal:
    """The database as a coordinator has it that dies: with the first try of each transaction, and after its second one."""

    database: Database
    lost: bool = False
    kills: Counter[str] = field(default_factory=Counter)

    def reading(self) -> object:
        return self.database.reading()

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[Transaction]:
        self.lost = not self.lost
        async with self.database.writing() as transaction:
            yield transaction
            if self.lost:
                self.kills["before"] += 1
                raise KilledError
        self.kills["after"] += 1
        raise KilledError


@dataclass(slots=True)
class Gates:
    """Interlocks that shut and open at random."""

    draw: Random
    shut: bool = False

    async def first_shut(self, names: Sequence[str]) -> str:
        return names[0] if names and self.shut else ""

    def pass_time(self) -> None:
        self.shut = self.draw.random() < (0.5 if self.shut else 0.15)


@dataclass(slots=True)
class Line:
    """One run: the devices, the order, and what was seen of it."""

    draw: Random
    clock: Clock
    database: Database
    mortal: Mortal
    gates: Gates
    members: tuple[Member, ...]
    devices: dict[str, SimulatedMember]
    quorums: tuple[Quorum, ...]
    presence: Presence
    number: int = 0
    decision: Decision = Decision.NONE
    courses: dict[str, Course] = field(default_factory=dict)
    operator: Callable[[], str] = lambda: ""
    moved: set[str] = field(default_factory=set)
    probed: datetime | None = None

    async def begin(self) -> None:
        run = Coordination(
            id=0,
            plan="line",
            version="2",
            repository="plant",
            requested_by="uid 0",
            reason="",
            created=self.clock(),
            phase=Phase.PREPARING,
            step=0,
            entered=self.clock(),
            members=self.members,
            deadlines=_DEADLINES,
            quorums=self.quorums,
        )
        async with self.database.writing() as transaction:
            self.number = await coordinations.add(transaction, run)
            begun = await coordinations.known(transaction, self.number)
            await Hand(transaction, NOBODY, self.clock()).prepare(begun)

    async def carry_on(self) -> None:
        """A coordinator, and after each death the next one."""
        while True:
            database = cast("Database", self.mortal)
            coordinator = Coordinator(database, self.clock, self.gates, last_seen=self.presence.last_seen)
            try:
                await coordinator.advance()
            except KilledError:
                await self.check()
            else:
                await self.check()
                return

    async def live(self) -> Coordination:
        """Time passes until the run has ended."""
        for _ in range(MOST_TICKS):
            self.clock.advance(TICK_S)
            self.gates.pass_time()
            for device in self.draw.sample([*self.devices.values()], len(self.devices)):
                await device.ask()
                device.alone(self.hold_s(device.name), Lost.REVERT)
                if device.moved:
                    self.moved.add(device.name)
                self.check_mix()
            await self.carry_on()
            if (run := await self.run()).ending is not None:
                return run
        raise AssertionError(f"the run did not end: {await self.run()}")

    def hold_s(self, name: str) -> int:
        steps = max(member.step for member in self.members) + 1
        step = next(member.step for member in self.members if member.node == name)
        return _DEADLINES.hold_s + (steps - 1 - step) * _DEADLINES.revert_s

    async def run(self) -> Coordination:
        async with self.database.reading() as transaction:
            return await coordinations.known(transaction, self.number)

    def check_mix(self) -> None:
        """Never a mix that the plan forbids, unless who is missing went back by itself; never more down than a quorum allows."""
        for member in self.members:
            bad = [need for need in member.needs if self.devices[member.node].runs_new and not self.devices[need].runs_new]
            assert all(self.devices[need].moved for need in bad), (
                f"{member.node} runs the new version without {bad}: {self.devices}"
            )
        for quorum in self.quorums:
            down = [name for name in quorum.nodes if self.devices[name].down and self.courses.get(name) is not Course.STUCK]
            assert len(down) <= quorum.at_most, f"{down} are down at once"

    async def check(self) -> None:
        """What the coordinator has written: one decision, orders that agree with it, nothing begun through a shut interlock."""
        async with self.database.reading() as transaction:
            run = await coordinations.known(transaction, self.number)
            ordered = await actions.several(transaction, [each.action for each in run.members if each.action is not None])
        assert self.decision in {Decision.NONE, run.decision}, "the decision changed"
        if run.phase is Phase.PROBING:
            self.probed = run.entered
        if self.decision is not run.decision and run.decision is Decision.COMMIT and not run.why:
            heard = [device.heard for device in self.devices.values()]
            assert all(moment and self.probed and moment > self.probed for moment in heard), "decided without asking"
        self.decision = run.decision
        for member in run.members:
            before = self.courses.get(member.node, Course.WAITING)
            if member.interlocks and before is not member.course and member.course in {Course.GOING, Course.BACKING}:
                assert not self.gates.shut, f"{member.node} was told {member.course} while its interlock was shut"
            self.courses[member.node] = member.course
            if member.action is not None:
                self.check_order(run, member, ordered[member.action])

    def check_order(self, run: Coordination, member: Member, action: Action) -> None:
        if not member.hold or action.release == _OLD:
            return
        allowed = {
            Decision.NONE: {Commit.PREPARE, Commit.HOLD},
            Decision.COMMIT: {Commit.PREPARE, Commit.HOLD, Commit.COMMIT},
            Decision.REVERT: {Commit.PREPARE, Commit.HOLD, Commit.ABORT},
        }[run.decision]
        kept = member.course is Course.KEPT or member.note.startswith(("stays on", "was to stay"))
        assert action.commit in allowed or (kept and action.commit is Commit.COMMIT), (run.decision, member, action.commit)


def drawn_members(draw: Random) -> tuple[Member, ...]:
    """Devices in up to four steps; each rests on some of the steps below; two in five runs have one that cannot hold."""
    steps = sorted(draw.randrange(draw.randint(1, 4)) for _ in range(DEVICES))
    steps = [sorted(set(steps)).index(step) for step in steps]
    stock = draw.randrange(DEVICES) if draw.random() < 0.4 else -1
    found: list[Member] = []
    for index, step in enumerate(steps):
        below = [each.node for each in found if each.step < step]
        needs = tuple(draw.sample(below, draw.randint(0, min(3, len(below)))))
        gated = ("gate",) if draw.random() < 0.5 else ()
        found.append(Member(f"n{index}", step, _NEW, previous=_OLD, hold=index != stock, needs=needs, interlocks=gated))
    return tuple(found)


async def make_line(folder: Path, seed: int) -> Line:
    draw, clock = Random(seed), Clock()
    database = await Database.open(sqlite_url(folder / "gateway.db"))
    presence, members = Presence(database, clock), drawn_members(draw)
    progress = Progress(database, clock, presence=presence)
    bad = {f"n{draw.randrange(DEVICES)}" for _ in range(draw.choice([0, 1, 1, 2, 2, 3]))}
    faults = {name: draw.choice([*Fault, *_TELLING]) for name in sorted(bad)}
    if draw.random() < 0.3:  # all try the new version, one goes back by itself, and the last one will not
        faults = {f"n{draw.randrange(DEVICES - 1)}": Fault.HOLD, f"n{DEVICES - 1}": Fault.REFUSE}
    devices = {
        each.node: SimulatedMember(
            each.node,
            _NEW,
            _OLD,
            Random(draw.random()),
            clock,
            progress,
            faults.get(each.node, Fault.NONE),
            each.hold,
        )
        for each in members
    }
    await register_as(database, clock, {each.node: ClientKind.AGENT if each.hold else ClientKind.SWUPDATE for each in members})
    group = tuple(draw.sample([each.node for each in members], 3))
    quorums = (Quorum(group, 1),) if draw.random() < 0.5 else ()
    return Line(draw, clock, database, Mortal(database), Gates(draw), members, devices, quorums, presence)


def check_end(line: Line, run: Coordination) -> None:
    """What it says that it ended as, it ended as."""
    devices = line.devices.values()
    match run.ending:
        case Ending.COMPLETE:
            assert all(device.runs_new and device.confirmed for device in devices)
        case Ending.REVERTED:
            assert not any(device.runs_new for device in devices)
        case Ending.INCONSISTENT:
            stuck = [member for member in run.members if member.course is Course.STUCK]
            kept = [member for member in run.members if member.course is Course.NEW and member.note.startswith("stays on")]
            assert stuck or kept, run
            assert all(member.note for member in stuck)
            assert all(line.devices[each.node].fault in FOREVER_BAD or line.devices[each.node].silent for each in stuck), run
        case None:
            raise AssertionError("it has not ended")
    for member in run.members:
        device = line.devices[member.node]
        if member.course is not Course.STUCK:
            assert (device.runs_new, device.confirmed) == (member.course is Course.NEW, True), (member, device)
    said = " ".join([run.why, *(each.words for each in run.remarks)])
    assert all(name in said for name in line.moved), f"{line.moved} went back by themselves, and nobody is told: {said}"


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here and not machines: waiting for the disk would try nothing more."""
    pragmas = [each.replace("synchronous=FULL", "synchronous=OFF") for each in engine._SQLITE_PRAGMAS]
    monkeypatch.setattr(engine, "_SQLITE_PRAGMAS", tuple(pragmas))


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("seeds", RUNS)
async def test_no_forbidden_mix_is_made_however_often_the_coordinator_is_killed(tmp_path: Path, seeds: range) -> None:
    endings, kills = Counter[str](), Counter[str]()
    for seed in seeds:
        (folder := tmp_path / str(seed)).mkdir()
        line = await make_line(folder, seed)
        try:
            await line.begin()
            run = await line.live()
            check_end(line, run)
        except AssertionError as error:
            raise AssertionError(f"run {seed}: {error}") from error
        finally:
            await line.database.close()
        endings[str(run.ending)] += 1
        kills += line.mortal.kills
    print(f"\n{len(seeds)} runs of {DEVICES} devices: {dict(endings)}; coordinator killed {dict(kills)} its commits")
    assert set(endings) == {"complete", "reverted", "inconsistent"}
