"""Several devices are updated together: this one stops where it is told to, and goes where it was decided for all of them."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.agent import Turn
from node_agent.drivers.driver import Restart, SlotState
from node_agent.record import entry_from_mapping
from node_agent.source import Cancel, Offer
from node_agent.states import Outcome, State
from tests.node_agent.doubles import Assigner, Device, Supply
from tests.node_agent.node import ORDER, Node
from update.durable import Disk
from update.errors import FieldrelayError, StateError, UnreachableError
from update.store.journal import Journal
from update.wire.assignment import Commit, Lost

PREPARE, HOLD, COMMIT, ABORT = (replace(ORDER, commit=commit) for commit in Commit)
WRITTEN, HELD = ["write"], ["write", "activate", "restart"]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Device(), Supply(tmp_path), Assigner([PREPARE]))


async def told(node: Node, *orders: Offer | Cancel | FieldrelayError | None) -> State:
    """The node hears this until it waits or has nothing left to do; the state it is in."""
    node.source.orders = list(orders)
    await node.run()
    return node.journal


def results(node: Node) -> list[tuple[Outcome | None, str]]:
    return [(result.outcome, result.code) for result in node.source.results]


async def test_a_prepared_device_was_written_and_not_restarted(node: Node) -> None:
    agent = node.start()
    assert await agent.turn() is Turn.HELD
    assert (agent.entry.state, node.device.calls, node.device.trial) == (State.PREPARED, WRITTEN, None)
    assert (node.visited(), node.source.results) == ([State.FETCHING, State.WRITING, State.PREPARED], [])


async def test_step_by_step_to_the_end(node: Node) -> None:
    assert await told(node, PREPARE) is State.PREPARED
    assert await told(node, HOLD) is State.HOLDING
    assert (node.device.calls, node.device.booted, node.floor.values.release_counter) == (HELD, "b", 0)
    assert await told(node, COMMIT) is State.IDLE
    assert node.device.calls == [*HELD, "confirm"]
    assert results(node) == [(Outcome.CONFIRMED, "")]
    assert node.floor.values.release_counter == 2
    assert node.visited()[-4:] == [State.HOLDING, State.TESTING, State.CONFIRMING, State.REPORTING]


@pytest.mark.parametrize(("order", "stops"), [(HOLD, State.HOLDING), (COMMIT, State.IDLE)])
async def test_an_order_that_goes_further_at_once_does_not_stop_before(node: Node, order: Offer, stops: State) -> None:
    assert await told(node, order) is stops
    assert State.PREPARED not in node.visited()


async def test_a_commit_for_a_prepared_device_does_not_stop_on_trial(node: Node) -> None:
    await told(node, PREPARE)
    assert await told(node, COMMIT) is State.IDLE
    assert State.HOLDING not in node.visited()
    assert results(node) == [(Outcome.CONFIRMED, "")]


@pytest.mark.parametrize("stop", [ABORT, Cancel("7", "c7")])
async def test_before_its_trial_a_device_only_lets_go(node: Node, stop: Offer | Cancel) -> None:
    await told(node, PREPARE)
    assert await told(node, stop) is State.IDLE
    assert node.device.calls == WRITTEN
    assert results(node) == [(Outcome.CANCELLED, "")]


@pytest.mark.parametrize(("stop", "says"), [(ABORT, "aborted"), (Cancel("7", "c7"), "cancelled on trial")])
async def test_on_trial_a_device_goes_back_and_says_why(node: Node, stop: Offer | Cancel, says: str) -> None:
    await told(node, HOLD)
    assert await told(node, stop) is State.IDLE
    assert node.device.calls == [*HELD, "revert", "restart"]
    assert (node.device.booted, node.device.states["b"]) == ("a", SlotState.BAD)
    (result,) = [result for result in node.source.results if not result.answers]
    assert (result.outcome, result.code) == (Outcome.ROLLED_BACK, "device.rolled-back")
    assert says in result.message


async def test_an_abort_of_what_never_began_is_answered_and_never_begun_later(node: Node) -> None:
    await told(node, ABORT)
    assert (results(node), node.device.calls) == ([(Outcome.CANCELLED, "")], [])
    await told(node, COMMIT)
    await told(node, replace(COMMIT, fence=4))
    assert (node.device.calls, {result.outcome for result in node.source.results}) == ([], {Outcome.CANCELLED})


async def test_what_was_aborted_stays_aborted_under_a_newer_lease_too(node: Node) -> None:
    await told(node, HOLD)
    await told(node, ABORT)
    await told(node, replace(COMMIT, fence=4))
    assert node.device.calls.count("write") == 1
    assert {result.outcome for result in node.source.results} == {Outcome.ROLLED_BACK}


async def test_what_reverted_by_itself_is_carried_out_again_after_the_decision(node: Node) -> None:
    await told(node, HOLD)
    node.check.reason = "the application is down"
    assert await told(node, HOLD) is State.IDLE
    assert results(node)[-1] == (Outcome.ROLLED_BACK, "device.health")
    node.check.reason = None
    assert await told(node, replace(COMMIT, fence=4)) is State.IDLE
    assert results(node)[-1] == (Outcome.CONFIRMED, "")


@pytest.mark.parametrize("later", [PREPARE, HOLD, ABORT, Cancel("7", "c7"), replace(ORDER, action="8", fence=9)])
async def test_a_decision_to_commit_is_never_undone(node: Node, later: Offer | Cancel) -> None:
    await told(node, PREPARE)
    node.source.orders = [COMMIT]
    agent = node.start()
    assert await agent.turn() is Turn.EXIT
    node.device.power_on()
    await told(node, later)
    assert "revert" not in node.device.calls
    first = next(result for result in node.source.results if result.action == "7")
    assert first.outcome is Outcome.CONFIRMED


@pytest.mark.parametrize("later", [ABORT, Cancel("7", "c7"), replace(ORDER, action="8", fence=9)])
async def test_nor_while_it_is_still_written(node: Node, later: Offer | Cancel) -> None:
    node.look_s, node.device.hangs = 0.01, True
    node.source.orders = [PREPARE, COMMIT, later, UnreachableError("away")]
    agent = node.start()
    turning = asyncio.create_task(agent.turn())
    await node.source.at_last.wait()
    turning.cancel()
    await asyncio.wait({turning})
    node.device.hangs = False
    assert (agent.entry.state, agent.entry.commit) == (State.WRITING, Commit.COMMIT)
    node.source.orders = [COMMIT]
    await node.run()
    assert results(node)[0] == (Outcome.CONFIRMED, "")


async def test_a_decision_that_comes_while_it_is_written_is_not_lost(node: Node) -> None:
    node.look_s, node.device.hangs = 0.01, True
    node.source.orders = [PREPARE, HOLD, UnreachableError("away")]
    agent = node.start()
    turning = asyncio.create_task(agent.turn())
    await node.source.at_last.wait()
    node.device.goes_on.set()
    assert await turning is Turn.EXIT
    assert (agent.entry.state, agent.entry.commit) == (State.RESTARTING, Commit.HOLD)


async def test_a_decision_under_an_older_lease_is_refused_and_said_so(node: Node) -> None:
    await told(node, HOLD)
    assert await told(node, replace(COMMIT, fence=2)) is State.HOLDING
    assert "confirm" not in node.device.calls
    assert node.source.results == []
    assert (node.source.reports[-1].state, node.source.reports[-1].code) == (State.HOLDING, "trust.fence")
    said = len(node.source.reports)
    agent = node.start()
    await agent.turn()
    await agent.turn()
    assert len(node.source.reports) <= said + 2, "told once in each life of the process"


async def test_a_decision_under_a_newer_lease_counts_and_the_older_one_is_refused_afterwards(node: Node) -> None:
    await told(node, PREPARE)
    assert await told(node, replace(HOLD, fence=5)) is State.HOLDING
    assert await told(node, ABORT) is State.HOLDING
    assert await told(node, replace(COMMIT, fence=5)) is State.IDLE
    assert (node.source.results[-1].fence, node.source.results[-1].outcome) == (5, Outcome.CONFIRMED)


async def test_another_order_replaces_what_is_only_prepared(node: Node) -> None:
    await told(node, PREPARE)
    assert await told(node, replace(ORDER, action="8")) is State.IDLE
    assert [(result.action, result.outcome) for result in node.source.results] == [
        ("7", Outcome.CANCELLED),
        ("8", Outcome.CONFIRMED),
    ]


async def test_another_order_waits_for_what_is_on_trial_and_is_told_so(node: Node) -> None:
    await told(node, HOLD)
    assert await told(node, replace(ORDER, action="8")) is State.HOLDING
    assert (node.source.reports[-1].action, node.source.reports[-1].code) == ("7", "usage.busy")
    assert "action 8 waits" in node.source.reports[-1].message


async def test_a_member_that_is_not_well_any_more_goes_back_and_says_why(node: Node) -> None:
    await told(node, HOLD)
    node.check.reason = "the motor is hot"
    assert await told(node, HOLD) is State.IDLE
    assert node.device.booted == "a"
    assert (node.source.results[-1].outcome, node.source.results[-1].code) == (Outcome.ROLLED_BACK, "device.health")
    assert "the motor is hot" in node.source.results[-1].message


async def test_it_is_tested_once_more_before_it_is_confirmed(node: Node) -> None:
    await told(node, HOLD)
    node.check.answers = [None]
    node.check.reason = "fails at last"
    assert await told(node, COMMIT) is State.IDLE
    assert "confirm" not in node.device.calls
    assert results(node) == [(Outcome.ROLLED_BACK, "device.health")]


async def test_a_trial_that_is_no_longer_what_runs_is_reported_as_rolled_back(node: Node) -> None:
    await told(node, HOLD)
    node.device.trial, node.device.states["b"], node.device.booted = None, SlotState.BAD, "a"
    assert await told(node, HOLD) is State.IDLE
    assert results(node) == [(Outcome.ROLLED_BACK, "device.rolled-back")]


async def test_a_prepared_slot_that_is_found_incomplete_is_written_again(node: Node) -> None:
    await told(node, PREPARE)
    node.device.states["b"] = SlotState.EMPTY
    assert await told(node, PREPARE) is State.PREPARED
    assert node.device.calls == ["write", "write"]


async def test_a_prepared_slot_that_was_started_by_hand_ends_the_update(node: Node) -> None:
    await told(node, PREPARE)
    node.device.booted = "b"
    await told(node, HOLD)
    assert results(node) == [(Outcome.FAILED, "device.slot")]


async def test_a_device_that_cannot_hold_refuses_before_anything_is_written(node: Node) -> None:
    node.device.can_hold = False
    assert await told(node, HOLD) is State.IDLE
    assert (node.device.calls, results(node)) == ([], [(Outcome.REFUSED, "bundle.unsupported")])


async def test_a_device_that_cannot_hold_may_be_prepared_and_is_never_put_on_hold(node: Node) -> None:
    node.device.can_hold = False
    assert await told(node, PREPARE) is State.PREPARED
    assert await told(node, HOLD) is State.IDLE
    assert "activate" not in node.device.calls
    assert results(node) == [(Outcome.REFUSED, "bundle.unsupported")]


async def test_a_gateway_that_is_away_is_waited_for_without_end_before_the_trial(node: Node) -> None:
    await told(node, replace(PREPARE, hold_s=60))
    node.time.passes(10_000)
    assert await told(node, UnreachableError("away")) is State.PREPARED


async def test_a_lost_gateway_ends_a_hold_as_it_was_ordered(node: Node) -> None:
    order = replace(HOLD, hold_s=600)
    await told(node, order)
    agent = node.start()
    await agent.turn()
    node.source.orders = [UnreachableError("away")]
    node.time.passes(599)
    assert await agent.turn() is Turn.HELD
    node.time.passes(2)
    assert await agent.turn() is Turn.EXIT
    node.device.power_on()
    await told(node, None)
    assert node.device.booted == "a"
    assert results(node) == [(Outcome.ROLLED_BACK, "device.undecided")]
    assert "600 s" in node.source.results[0].message


async def test_every_word_about_this_update_begins_the_time_anew(node: Node) -> None:
    node.source.orders = [replace(HOLD, hold_s=600)]
    agent = await node.run()
    for _ in range(5):
        node.time.passes(500)
        assert await agent.turn() is Turn.HELD


@pytest.mark.parametrize("said", [None, replace(ORDER, action="8"), replace(HOLD, hold_s=600, fence=2), Cancel("8", "c8")])
async def test_a_gateway_that_does_not_know_of_this_update_is_lost_too(node: Node, said: Offer | Cancel | None) -> None:
    node.source.orders = [replace(HOLD, hold_s=600)]
    agent = await node.run()
    node.source.orders = [said]
    node.time.passes(601)
    assert await agent.turn() is Turn.EXIT
    assert "revert" in node.device.calls


async def test_a_hold_without_limit_lasts(node: Node) -> None:
    node.source.orders = [HOLD]
    agent = await node.run()
    node.source.orders = [None]
    node.time.passes(10**9)
    assert await agent.turn() is Turn.HELD


async def test_a_trial_that_shall_be_kept_stays_and_says_so_until_the_gateway_is_back(node: Node) -> None:
    order = replace(HOLD, hold_s=600, lost=Lost.KEEP)
    node.source.orders = [order]
    agent = await node.run()
    node.source.orders = [None]
    node.time.passes(601)
    assert await agent.turn() is Turn.HELD
    assert (node.source.reports[-1].state, node.source.reports[-1].code) == (State.HOLDING, "device.undecided")
    node.source.orders = [replace(order, commit=Commit.COMMIT)]
    assert await agent.turn() is Turn.ENDED
    assert results(node) == [(Outcome.CONFIRMED, "")]


async def test_a_wall_clock_that_jumps_ends_no_hold_within_a_process(node: Node) -> None:
    node.source.orders = [replace(HOLD, hold_s=600)]
    agent = await node.run()
    node.source.orders = [None]
    node.time.wall_s += 10**9
    assert await agent.turn() is Turn.HELD
    node.time.wall_s -= 2 * 10**9
    assert await agent.turn() is Turn.HELD
    node.time.monotonic_s += 601
    assert await agent.turn() is Turn.EXIT


@pytest.mark.parametrize(("gone_s", "turn"), [(599, Turn.HELD), (601, Turn.EXIT), (-(10**6), Turn.HELD)])
async def test_the_time_between_two_processes_counts_by_the_journal(node: Node, gone_s: float, turn: Turn) -> None:
    await told(node, replace(HOLD, hold_s=600))
    node.source.orders = [UnreachableError("away")]
    node.time.wall_s += gone_s
    node.time.monotonic_s = 7.0
    agent = node.start()
    assert await agent.turn() is turn
    node.time.monotonic_s += 601
    if turn is Turn.HELD:
        assert await agent.turn() is Turn.EXIT, "never more than the whole time is left"


async def test_an_operator_may_take_back_what_waits_and_confirms_nothing_alone(node: Node) -> None:
    await told(node, HOLD)
    agent = node.start()
    with pytest.raises(StateError, match="only the gateway decides"):
        await agent.confirm()
    assert await agent.roll_back("we need the old one") is Turn.EXIT
    node.device.power_on()
    await told(node, None)
    assert node.source.results[-1].message == "we need the old one"
    assert node.device.booted == "a"


async def test_an_operator_may_take_back_what_is_only_prepared(node: Node) -> None:
    await told(node, PREPARE)
    await node.start().roll_back("not today")
    assert (node.device.calls, results(node)) == (WRITTEN, [(Outcome.CANCELLED, "device.rolled-back")])


async def test_a_device_that_restarts_under_its_agent_goes_all_the_way_in_one_process(node: Node) -> None:
    node.device.restarts = Restart.DONE
    node.source.orders = [HOLD]
    agent = node.start()
    assert await agent.turn() is Turn.HELD
    node.source.orders = [ABORT]
    assert await agent.turn() is Turn.ENDED
    assert node.device.booted == "a"


async def test_a_journal_of_a_coordinated_update_is_no_older_release_s(node: Node) -> None:
    def version() -> object:
        return json.loads((node.folder / "journal.json").read_bytes())["format_version"]

    await told(node, HOLD)
    assert version() == 2
    await told(node, COMMIT)
    assert version() == 1
    assert await told(node, replace(ORDER, action="8", target="next.swu")) is State.IDLE
    assert version() == 1


async def test_a_journal_of_an_older_release_is_of_an_order_to_go_to_the_end(node: Node) -> None:
    node.source.orders = [ORDER]
    agent = node.start()
    assert await agent.turn() is Turn.EXIT
    journal = Journal(Disk(), node.folder / "journal.json")
    kept = dict(journal.read() or {})
    for key in ("commit", "together", "hold_s", "hold_until", "lost"):
        del kept[key]
    journal.write(kept)
    assert entry_from_mapping(kept).commit is Commit.COMMIT
    node.device.power_on()
    assert await told(node, ORDER) is State.IDLE
    assert results(node)[0] == (Outcome.CONFIRMED, "")


async def test_an_abort_ends_a_test_that_would_last(node: Node) -> None:
    await told(node, PREPARE)
    node.source.orders = [HOLD]
    assert await node.start().turn() is Turn.EXIT
    node.device.power_on()
    node.look_s, node.check.waits = 0.01, asyncio.Event()
    node.source.orders = [HOLD, ABORT]
    async with asyncio.timeout(60):
        assert await node.start().turn() is Turn.EXIT
    node.device.power_on()
    await told(node, None)
    assert (node.device.booted, results(node)) == ("a", [(Outcome.ROLLED_BACK, "device.rolled-back")])


async def test_a_commit_during_the_test_is_followed_without_a_hold(node: Node) -> None:
    node.source.orders = [HOLD]
    assert await node.start().turn() is Turn.EXIT
    node.device.power_on()
    node.look_s, node.check.waits = 0.01, asyncio.Event()
    node.source.orders = [HOLD, COMMIT, UnreachableError("away")]
    node.source.at_last.clear()
    turning = asyncio.create_task(node.start().turn())
    await node.source.at_last.wait()
    node.check.waits.set()
    assert await turning is Turn.ENDED
    assert State.HOLDING not in node.visited()
    node.source.orders = [COMMIT]
    await node.run()
    assert results(node)[0] == (Outcome.CONFIRMED, "")


async def test_the_test_of_a_device_alone_is_not_ended_by_a_cancellation(node: Node) -> None:
    node.source.orders = [ORDER]
    assert await node.start().turn() is Turn.EXIT
    node.device.power_on()
    node.source.orders = [Cancel("7", "c7")]
    await node.run()
    assert "revert" not in node.device.calls
    assert node.source.results[0].outcome is Outcome.CONFIRMED


@pytest.mark.parametrize("lost_in", [State.RESTARTING, State.HOLDING])
@pytest.mark.parametrize(("decided", "outcome"), [(COMMIT, Outcome.CONFIRMED), (ABORT, Outcome.ROLLED_BACK)])
async def test_a_lost_journal_leaves_the_decision_to_the_gateway(
    node: Node, lost_in: State, decided: Offer, outcome: Outcome
) -> None:
    node.source.orders = [replace(HOLD, hold_s=600)]
    agent = node.start()
    assert await agent.turn() is Turn.EXIT
    if lost_in is State.HOLDING:
        node.device.power_on()
        await told(node, HOLD)
    assert node.journal is lost_in
    (node.folder / "journal.json").unlink()
    if lost_in is State.RESTARTING:
        node.device.power_on()
    assert await told(node, None) is State.HOLDING
    assert "confirm" not in node.device.calls
    await told(node, decided)
    assert {(result.action, result.outcome) for result in node.source.results} == {("7", outcome)}
    assert not node.trial.path.exists()


async def test_a_lost_journal_and_a_lost_gateway_end_as_was_ordered(node: Node) -> None:
    await told(node, replace(HOLD, hold_s=600))
    (node.folder / "journal.json").unlink()
    node.source.orders = [None]
    agent = node.start()
    assert await agent.turn() is Turn.HELD
    node.time.passes(601)
    assert await agent.turn() is Turn.EXIT
    assert node.device.calls[-2:] == ["revert", "restart"]


async def test_a_second_record_that_is_damaged_too_takes_the_trial_back(node: Node) -> None:
    await told(node, HOLD)
    (node.folder / "journal.json").unlink()
    node.trial.path.write_text("not one")
    await told(node, None)
    assert ("confirm" in node.device.calls, node.device.booted) == (False, "a")
    assert "waits for others" in node.source.results[-1].message


async def test_a_second_record_of_what_ended_holds_up_nothing(node: Node) -> None:
    await told(node, HOLD)
    kept = node.trial.path.read_bytes()
    await told(node, COMMIT)
    node.trial.path.write_bytes(kept)
    node.device.trial = "b"
    await told(node, None)
    assert node.device.calls[-1] == "confirm"
    node.trial.path.write_bytes(kept)
    await told(node, None)
    assert not node.trial.path.exists(), "nothing is on trial"


async def test_a_device_that_is_updated_alone_keeps_no_second_record(node: Node) -> None:
    node.source.orders = [ORDER]
    assert await node.start().turn() is Turn.EXIT
    assert not node.trial.path.exists()
