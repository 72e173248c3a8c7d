"""A line of simulated devices that obey what agents promise, with faults, told of their orders by the gateway's real parts.

A device acts when it asks, as an agent does: what it was told to do it does at once, and says it when it asks the next time, or
later still. So what the gateway knows is always a little old, as in a plant. Faults are drawn from a seed, once for a device.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from random import Random
from uuid import uuid4

from gateway.database.records import Action, ActionState, ClientKind, Commit, Release
from gateway.fleet.judgement import Told
from gateway.fleet.progress import Progress
from update.digest import Digest, digest_of
from update.plans.plan import Lost
from update.wire.ddi import Execution, Finished


class Fault(StrEnum):
    """What is wrong with a device."""

    NONE = "none"
    PREPARE = "fails to prepare"
    TEST = "fails its test"
    TEST_ONCE = "fails its test at the first try"
    HOLD = "goes back by itself while it holds"
    SILENT = "is silent for a while"
    DEAD = "is silent for ever"
    REFUSE = "does not go back"
    LATE = "says everything late"
    CONFIRM = "fails its test before it confirms, once"


FOREVER_BAD = frozenset({Fault.TEST, Fault.DEAD, Fault.REFUSE, Fault.PREPARE})


class Wait(StrEnum):
    """Where a device waits."""

    IDLE = "idle"
    WRITING = "writing"
    PREPARED = "prepared"
    TRYING = "trying"
    HOLDING = "holding"


@dataclass(slots=True)
class SimulatedMember:
    """One device. `runs_new` is what it really runs; `moved` that it went back by nobody's order."""

    name: str
    new: Release
    old: Release
    draw: Random
    now: Callable[[], datetime]
    progress: Progress
    fault: Fault = Fault.NONE
    hold: bool = True
    runs_new: bool = False
    confirmed: bool = True
    moved: bool = False
    down: bool = False
    wait: Wait = Wait.IDLE
    action: int = 0
    highest_fence: int = 0
    ends: dict[int, Told] = field(default_factory=dict)
    unsaid: list[tuple[datetime, int, Told]] = field(default_factory=list)
    heard: datetime | None = None
    silent: int = 0
    work: int = 0
    wants: Release | None = None
    asked: int = 0
    fences: list[int] = field(default_factory=list)

    @property
    def fingerprint(self) -> Digest:
        return digest_of(self.name.encode())

    async def ask(self) -> None:
        """One turn: tell what is to be told, ask, and do as told."""
        self.asked += 1
        if self.fault is Fault.DEAD and self.asked > 3 + self.draw.randrange(12):
            self.silent = 10**9
        elif self.fault is Fault.SILENT and self.silent == 0 and self.draw.random() < 0.1:
            self.silent, self.fault = 2 + self.draw.randrange(60), Fault.NONE
        if self.silent:
            self.silent -= 1
            return
        await self._say()
        kind = ClientKind.AGENT if self.hold else ClientKind.SWUPDATE
        contact = await self.progress.contact(self.name, self.fingerprint, kind)
        self.heard = self.now()
        if contact.action is None:
            return
        if contact.action.state is ActionState.CANCELLING:
            await self._cancelled(contact.action)
        elif contact.action.state is ActionState.OPEN:
            self._obey(await self.progress.offer(self.name, contact.action.id))

    def alone(self, hold_s: int, lost: Lost) -> None:
        """What it does when nobody was heard for too long."""
        waited_s = (self.now() - self.heard).total_seconds() if self.heard else 0.0
        if self.wait is Wait.HOLDING and hold_s and waited_s >= hold_s and lost is Lost.REVERT:
            self._go_back("nobody decided in time", by_itself=True)

    def _obey(self, action: Action) -> None:
        if action.id in self.ends:
            self._tell(action.id, self.ends[action.id])
            return
        if action.id != self.action:
            if action.fence < self.highest_fence:
                raise AssertionError(f"{self.name} was ordered with fence {action.fence} after {self.highest_fence}")
            self.action, self.highest_fence, self.wants = action.id, action.fence, action.release
            self.fences.append(action.fence)
            self.wait, self.work = Wait.WRITING, 1 + self.draw.randrange(4)
        if self.hold:
            self._agent(action)
        else:
            self._stock(action)

    def _agent(self, action: Action) -> None:
        match self.wait:
            case Wait.IDLE:
                raise AssertionError(f"{self.name} is idle in action {action.id}, which has not ended")
            case Wait.WRITING:
                self._write(action)
            case Wait.PREPARED:
                if action.commit is Commit.ABORT:
                    self._end(Execution.CANCELED, "cancelled", "cancelled in time")
                elif action.commit is Commit.PREPARE:
                    self._state("prepared")
                else:
                    self._state("activating")
                    self.wait, self.down, self.work = Wait.TRYING, True, 1 + self.draw.randrange(3)
            case Wait.TRYING:
                self.work -= 1
                if self.work <= 0:
                    self._tried()
            case Wait.HOLDING:
                self._decided(action)

    def _write(self, action: Action) -> None:
        if action.commit is Commit.ABORT:
            self._end(Execution.CANCELED, "cancelled", "cancelled in time")
            return
        if self.fault is Fault.PREPARE:
            self._end(Execution.CLOSED, "failed", "the slot cannot be written")
            return
        self.work -= 1
        if self.work <= 0:
            self.wait = Wait.PREPARED
            self._state("prepared")

    def _tried(self) -> None:
        """The trial has come up, or not."""
        self.down = False
        if self.fault is Fault.REFUSE and self.wants == self.old:
            self._end(Execution.CLOSED, "failed", "the old version does not start any more")
            return
        if self.fault in {Fault.TEST, Fault.TEST_ONCE}:
            self.fault = Fault.TEST if self.fault is Fault.TEST else Fault.NONE
            self.wait, self.confirmed = Wait.IDLE, True
            self._end(Execution.CLOSED, "rolled-back", "the new version did not pass its test")
            return
        self.wait, self.confirmed = Wait.HOLDING, False
        self.runs_new = self.wants == self.new
        self.moved = self.moved and not self.runs_new
        self._state("holding")

    def _decided(self, action: Action) -> None:
        if action.commit is Commit.ABORT:
            if self.fault is Fault.REFUSE:
                self.confirmed, self.wait = True, Wait.IDLE
                self._end(Execution.CLOSED, "inconsistent", "the device could not be taken back, look at it")
            else:
                self._go_back("aborted", by_itself=False)
        elif self.fault is Fault.HOLD and self.draw.random() < 0.3:
            self.fault = Fault.NONE
            self._go_back("a health check failed", by_itself=True)
        elif action.commit is Commit.COMMIT:
            if self.fault is Fault.CONFIRM:
                self.fault = Fault.NONE
                self._go_back("a health check failed before confirming", by_itself=True)
                return
            self.confirmed, self.wait = True, Wait.IDLE
            self._end(Execution.CLOSED, "confirmed", "", proven=True)
        else:
            self._state("holding")

    def _stock(self, action: Action) -> None:
        """A client that goes to the end whatever it is told."""
        self.work -= 1
        if self.work > 0:
            self.down = True
            return
        self.down, self.wait = False, Wait.IDLE
        back = action.release == self.old
        fails = self.fault in {Fault.TEST, Fault.PREPARE} or (back and self.fault is Fault.REFUSE)
        if self.fault is Fault.TEST_ONCE:
            self.fault, fails = Fault.NONE, True
        if not fails:
            self.runs_new = not back
        outcome = Finished.FAILURE if fails else Finished.SUCCESS
        self._keep(Told(str(uuid4()), Execution.CLOSED, outcome, details=("done",)))

    async def _cancelled(self, action: Action) -> None:
        begun = action.id == self.action and self.wait is not Wait.IDLE
        if action.id in self.ends or (begun and self.down):
            answer = Told(str(uuid4()), Execution.REJECTED, Finished.NONE, details=("too late",))
        else:
            self.wait = Wait.IDLE
            answer = Told(str(uuid4()), Execution.CLOSED, Finished.SUCCESS, details=("let go",))
        await self.progress.cancel_feedback(self.name, action.id, answer)

    def _go_back(self, why: str, *, by_itself: bool) -> None:
        self.runs_new, self.confirmed, self.wait, self.moved = False, True, Wait.IDLE, by_itself
        self._end(Execution.CLOSED, "rolled-back", why)

    def _state(self, state: str) -> None:
        body = {"state": state, "fence": self.highest_fence}
        self._tell(self.action, Told(str(uuid4()), Execution.PROCEEDING, Finished.NONE, details=(state,), body=body))

    def _end(self, execution: Execution, outcome: str, message: str, *, proven: bool = False) -> None:
        good = Finished.SUCCESS if outcome == "confirmed" else Finished.FAILURE
        finished = Finished.NONE if execution is Execution.CANCELED else good
        body = {"state": "reporting", "fence": self.highest_fence}
        if self.wants is not None:
            body["version"] = self.wants.version
        told = Told(str(uuid4()), execution, finished, outcome=outcome, message=message, body=body, proven=proven)
        self.wait, self.down = Wait.IDLE, False
        self._keep(told)

    def _keep(self, told: Told) -> None:
        self.ends[self.action] = told
        self._tell(self.action, told)

    def _tell(self, action: int, told: Told) -> None:
        self.unsaid.append((self.now(), action, told))

    async def _say(self) -> None:
        """Deliver in order; one that says everything late keeps some back."""
        while self.unsaid and not (self.fault is Fault.LATE and self.draw.random() < 0.5):
            _, action, told = self.unsaid.pop(0)
            await self.progress.feedback(self.name, action, told)
