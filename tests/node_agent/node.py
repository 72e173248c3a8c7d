"""One node of doubles: a device, an assigner and bundles that do what a test says, and the agent between them."""

from dataclasses import dataclass, field
from pathlib import Path

from node_agent.agent import Agent, Pace, Turn
from node_agent.countdown import Countdown
from node_agent.health import Health, Patience
from node_agent.hooks import Hooks
from node_agent.interlocks import Interlocks
from node_agent.record import entry_from_mapping
from node_agent.reports import Reports
from node_agent.source import Offer
from node_agent.states import State
from node_agent.steps import Steps
from tests.node_agent.doubles import NEW, Assigner, Device, MemoryFloor, Supply, Well
from update.durable import Disk
from update.store.journal import Journal

ORDER = Offer(action="7", fence=3, repository="plant", target="os.swu", sha256=NEW)


@dataclass
class Time:
    """Two clocks that a test sets."""

    wall_s: float = 1_000_000.0
    monotonic_s: float = 50.0

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


@dataclass
class Node:
    """One node: what survives a restart, and the agent of this start."""

    folder: Path
    device: Device
    supply: Supply
    source: Assigner
    floor: MemoryFloor = field(default_factory=MemoryFloor)
    check: Well = field(default_factory=Well)
    hooks: Hooks = field(default_factory=Hooks)
    locks: Interlocks = field(default_factory=Interlocks)
    look_s: float = 30.0
    time: Time = field(default_factory=Time)
    disk: Disk = field(default_factory=Disk)

    def start(self) -> Agent:
        patience = Patience(deadline_s=0.05 if self.check.reason else 30, interval_s=0.01, passes=1)
        return Agent(
            node="n1",
            journal=Journal(self.disk, self.folder / "journal.json"),
            steps=Steps(self.device, self.supply, Health([self.check], patience), self.hooks, self.floor, self.trial, self.locks),
            source=self.source,
            reports=Reports(Journal(self.disk, self.folder / "reports.json"), now_ms=lambda: 1),
            pace=Pace(look_s=self.look_s, tell_s=30, retry_s=0),
            countdown=Countdown(lambda: int(self.time.wall_s * 1000), lambda: self.time.monotonic_s),
        )

    async def run(self) -> Agent:
        """Start, and start again after every exit, as a supervisor does, until there is nothing left to do."""
        for _ in range(40):
            agent = self.start()
            turn = await agent.turn()
            if turn in {Turn.ENDED, Turn.WAITING}:
                continue
            if turn is not Turn.EXIT:
                return agent
            self.device.power_on()
        raise AssertionError("the node restarts for ever")

    @property
    def trial(self) -> Journal:
        """The second record of a trial."""
        return Journal(self.disk, self.folder / "trial.json")

    @property
    def journal(self) -> State:
        return entry_from_mapping(Journal(Disk(), self.folder / "journal.json").read()).state

    def visited(self) -> list[State]:
        return [report.state for report in self.source.reports]
