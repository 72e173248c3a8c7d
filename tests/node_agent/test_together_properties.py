"""Whatever is said to a device of several, in whatever order, however often it is killed: the decision is kept, and only that.

Random lives: orders of each decision under newer and older leases, cancellations, another action, silence, a gateway away,
time that passes, a version that is ill for a while, a machine that runs, kills at any durable operation. What must hold is
checked after every step by what was heard, in `Judge`; at the end a last word brings the device to rest.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.agent import Turn
from node_agent.drivers.driver import SlotState
from node_agent.interlocks import Interlock, Interlocks
from node_agent.record import Entry, entry_from_mapping
from node_agent.source import Cancel, Offer
from node_agent.states import Outcome, State
from tests.node_agent.doubles import Assigner, Device, Supply, Well
from tests.node_agent.node import ORDER, Node
from update.durable import Disk, Operation
from update.errors import FieldrelayError, LostDecisionError, UnreachableError, WireError
from update.store.journal import Journal
from update.wire.assignment import Commit, Lost

HOLD_S = 600
HEARD = Offer | Cancel | FieldrelayError | None


class Killed(BaseException):
    """The process ends here; no handler of the code under test may take it for an error."""


@dataclass(frozen=True, slots=True)
class Step:
    """What happens next: `said` is what the assigner answers from now on; `kill_at` the operation at which the process ends."""

    said: HEARD = None
    kill_at: int = 0
    passes_s: int = 0
    ill: bool = False
    shut: bool = False


ORDERS = st.builds(
    replace,
    st.just(ORDER),
    commit=st.sampled_from(Commit),
    fence=st.integers(3, 6),
    hold_s=st.sampled_from([0, HOLD_S]),
    lost=st.sampled_from(Lost),
)
SAID = st.one_of(
    ORDERS,
    ORDERS.map(lambda order: replace(order, commit=Commit.HOLD)),
    st.just(Cancel("7", "c7")),
    st.just(replace(ORDER, action="8", fence=6)),
    st.none(),
    st.just(UnreachableError("away")),
)
STEPS = st.builds(
    Step,
    said=SAID,
    kill_at=st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 13]),
    passes_s=st.sampled_from([0, 0, 100, HOLD_S + 1]),
    ill=st.sampled_from([False, False, False, True]),
    shut=st.sampled_from([False, False, True]),
)


@dataclass
class Judge:
    """What must hold between two looks at the journal, by what was heard in between."""

    node: Node
    last: Entry = field(default_factory=Entry)
    highest: int = 0
    bound: bool = False

    def look(self) -> Entry:
        """Judge the step from the journal of before to that of now."""
        now = entry_from_mapping(Journal(Disk(), self.node.folder / "journal.json").read())
        heard, self.node.source.given = self.node.source.given, []
        assert now.highest_fence >= self.highest, "a lease that was seen is never forgotten"
        obeyed = [each for each in heard if not isinstance(each, Offer) or (each.fence or 0) >= self.highest]
        self._only_what_was_said(now, obeyed)
        self._never_both()
        if now.action == "7" and now.together and now.commit is Commit.COMMIT:
            assert not any(word in now.message for word in ("aborted", "cancelled")), "decided is decided"
            assert now.code != LostDecisionError.code
            self.bound = True
        elif now.action == "7" and self.bound:
            pytest.fail(f"the decision to commit was forgotten: {now}")
        if now.action != "7":
            self.bound = False  # another order was carried out since: the memory is of that one
        if now.code == LostDecisionError.code and now.state is not State.HOLDING:
            assert now.lost is Lost.REVERT
        self.last, self.highest = now, now.highest_fence
        return now

    def _only_what_was_said(self, now: Entry, obeyed: Sequence[HEARD]) -> None:
        commits = {each.commit for each in obeyed if isinstance(each, Offer) and each.action == now.action}
        if any(isinstance(each, Cancel) for each in obeyed):
            commits.add(Commit.ABORT)
        if now.action == "7" and (now.action, now.commit) != (self.last.action, self.last.commit):
            assert now.commit in commits or not now.together, f"{now.commit} was not said, or under an older lease"
        if now.together and now.outcome is Outcome.CONFIRMED and not now.message.endswith("runs already"):
            assert now.commit is Commit.COMMIT

    def _never_both(self) -> None:
        calls = self.node.device.calls
        assert "revert" not in calls[calls.index("confirm") :] if "confirm" in calls else True, calls


async def live(node: Node, judge: Judge, step: Step) -> None:
    """One process of the agent, up to its kill or until it has nothing to do for now."""
    node.source.orders, node.check.reason = [step.said], "ill" if step.ill else None
    node.locks = Interlocks([Interlock("stopped", Well("it runs" if step.shut else None), 10 * HOLD_S)])
    node.time.passes(step.passes_s)
    left = step.kill_at

    def kill(_operation: Operation) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    node.disk = Disk(kill)
    for _ in range(12):
        try:
            agent = node.start()
            turn = await agent.turn()
            while turn is Turn.ENDED:
                judge.look()
                turn = await agent.turn()
        except (Killed, WireError):
            judge.look()
            return
        judge.look()
        if turn is not Turn.EXIT:
            return
        node.device.power_on()
    pytest.fail(f"restarts for ever: {judge.last}")


def at_rest(node: Node, entry: Entry) -> None:
    """No trial is open, and what runs is whole."""
    assert (entry.state, node.device.trial) == (State.IDLE, None)
    assert node.device.states[node.device.booted] is SlotState.ACTIVE
    assert not node.trial.path.exists()


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply(tmp_path_factory.mktemp("supply"))


async def life(supply: Supply, steps: list[Step], end: Commit) -> None:
    """The steps, then the last word and rest."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder), Device(), supply, Assigner([None]))
        judge = Judge(node)
        for step in steps:
            await live(node, judge, step)
        before = judge.last
        await live(node, judge, Step(said=replace(ORDER, commit=end, fence=9)))
        await live(node, judge, Step())
        at_rest(node, judge.look())
        if "confirm" in node.device.calls:
            assert node.device.booted == "b", "what was kept stays"
        elif end is Commit.COMMIT and before.action == "7" and before.commit is not Commit.ABORT:
            assert before.outcome in {Outcome.REFUSED, Outcome.FAILED, Outcome.INCONSISTENT}, before
        else:
            assert node.device.booted == "a"


LIVES = {"steps": st.lists(STEPS, min_size=1, max_size=12), "end": st.sampled_from([Commit.COMMIT, Commit.ABORT])}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**LIVES)
def test_the_decision_is_kept_and_nothing_else(supply: Supply, steps: list[Step], end: Commit) -> None:
    asyncio.run(life(supply, steps, end))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**LIVES)
def test_the_decision_is_kept_in_thousands_of_lives(supply: Supply, steps: list[Step], end: Commit) -> None:
    asyncio.run(life(supply, steps, end))
