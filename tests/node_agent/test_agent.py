"""Every way through the life of an update, with a device, an assigner and bundles that do what the test says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.agent import Turn
from node_agent.drivers.driver import Restart, SlotState
from node_agent.hooks import Hook, Hooks, Moment
from node_agent.record import Entry, Release, entry_from_mapping
from node_agent.source import Cancel, Offer
from node_agent.states import TRIES, Outcome, State
from tests.node_agent.doubles import Assigner, Device, MemoryFloor, Supply, Well
from tests.node_agent.node import ORDER, Node
from update.bundle.verified import VerifiedBundle
from update.durable import Disk
from update.errors import (
    BootloaderError,
    ChunkError,
    ExpiredError,
    FieldrelayError,
    HandlerError,
    NoSpaceError,
    RollbackError,
    SlotError,
    StateError,
    UnknownTargetError,
    UnreachableError,
)
from update.store.journal import Journal


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Device(), Supply(tmp_path), Assigner([ORDER]))


async def test_a_good_version_is_written_tried_tested_confirmed_and_reported_once(node: Node) -> None:
    agent = await node.run()
    assert node.device.calls == ["write", "activate", "restart", "confirm"]
    assert (node.device.booted, node.device.trial) == ("b", None)
    assert [report.outcome for report in node.source.results] == [Outcome.CONFIRMED]
    assert node.source.results[0].version == "1.2"
    assert node.visited()[:3] == [State.FETCHING, State.WRITING, State.ACTIVATING]
    assert agent.entry.in_slot("b") == replace(node.supply.release, bundle=node.supply.bundle.digest)
    assert (node.floor.values.release_counter, node.floor.values.security_counter) == (2, 1)
    assert node.supply.forgotten == 1


async def test_a_version_that_is_not_well_is_taken_back_and_the_floor_stays(node: Node) -> None:
    node.check = Well("the application is down")
    await node.run()
    assert node.device.calls == ["write", "activate", "restart", "revert", "restart"]
    assert node.device.booted == "a"
    (result,) = node.source.results
    assert (result.outcome, result.code) == (Outcome.ROLLED_BACK, "device.health")
    assert "the application is down" in result.message
    assert node.floor.values.security_counter == 0


async def test_a_version_that_came_up_and_crashed_is_taken_back_though_its_checks_pass(node: Node) -> None:
    node.device.crashes = True
    await node.run()
    assert (node.device.booted, "confirm" in node.device.calls) == ("a", False)
    (result,) = node.source.results
    assert (result.outcome, result.code) == (Outcome.ROLLED_BACK, "device.slot")
    assert "failed on trial" in result.message


async def test_a_version_that_never_comes_up_is_reported_as_rolled_back_by_the_bootloader(node: Node) -> None:
    node.device.comes_up = False
    await node.run()
    assert node.device.booted == "a"
    assert [(result.outcome, result.code) for result in node.source.results] == [(Outcome.ROLLED_BACK, "device.rolled-back")]


async def test_a_device_that_restarts_under_the_agent_needs_no_new_process(node: Node) -> None:
    node.device.restarts = Restart.DONE
    assert await node.start().turn() is Turn.ENDED
    assert node.device.booted == "b"


async def test_a_commanded_restart_starts_nothing_new(node: Node) -> None:
    node.device.restarts = Restart.COMMANDED
    assert await node.start().turn() is Turn.GOING_DOWN
    assert node.journal is State.RESTARTING


@pytest.mark.parametrize(
    ("call", "error", "outcome"),
    [
        ("resolve", UnknownTargetError("not listed"), Outcome.REFUSED),
        ("judge", RollbackError("below the floor"), Outcome.REFUSED),
        ("obtain", ExpiredError("stale"), Outcome.REFUSED),
        ("obtain", NoSpaceError("full"), Outcome.FAILED),
    ],
)
async def test_a_refusal_is_reported_with_its_code_and_nothing_is_written(
    node: Node, call: str, error: FieldrelayError, outcome: Outcome
) -> None:
    node.supply.fail[call] = [error]
    await node.run()
    assert node.device.calls == []
    assert [(result.outcome, result.code) for result in node.source.results] == [(outcome, error.code)]


async def test_an_order_waits_while_the_gateway_is_away_without_counting_a_try(node: Node) -> None:
    node.supply.fail["obtain"] = [UnreachableError("away")] * 15
    agent = node.start()
    for _ in range(15):
        assert await agent.turn() is Turn.WAITING
        assert (agent.entry.state, agent.entry.tries) == (State.IDLE, 0)
    await node.run()
    assert [result.outcome for result in node.source.results] == [Outcome.CONFIRMED]


async def test_writing_waits_for_the_gateway_and_goes_on(node: Node) -> None:
    node.device.fail["write"] = [UnreachableError("away")] * 8
    agent = node.start()
    for _ in range(8):
        assert await agent.turn() is Turn.WAITING
        assert (agent.entry.state, agent.entry.tries) == (State.WRITING, 1)
    await node.run()
    assert [result.outcome for result in node.source.results] == [Outcome.CONFIRMED]


async def test_a_wrong_chunk_is_fetched_again(node: Node) -> None:
    node.device.fail["write"] = [ChunkError("wrong bytes")]
    await node.run()
    assert [result.outcome for result in node.source.results] == [Outcome.CONFIRMED]


async def test_chunks_that_are_always_wrong_end_the_update(node: Node) -> None:
    node.device.fail["write"] = [ChunkError("wrong bytes")] * 99
    await node.run()
    assert node.device.calls == ["write"] * TRIES[State.WRITING].limit
    assert [result.code for result in node.source.results] == ["bundle.chunk"]


async def test_a_slot_that_cannot_be_written_is_not_tried_again(node: Node) -> None:
    node.device.fail["write"] = [SlotError("too small")]
    await node.run()
    assert node.device.calls == ["write"]
    assert [(result.outcome, result.code) for result in node.source.results] == [(Outcome.FAILED, "device.slot")]


@pytest.mark.parametrize("call", ["activate", "restart"])
async def test_a_trial_that_cannot_be_opened_leaves_the_old_version(node: Node, call: str) -> None:
    node.device.fail[call] = [BootloaderError("environment is damaged")]
    await node.run()
    assert (node.device.booted, node.device.trial) == ("a", None)
    assert [(result.outcome, result.code) for result in node.source.results] == [(Outcome.ROLLED_BACK, "device.bootloader")]


async def test_a_confirmation_that_fails_is_tried_again(node: Node) -> None:
    node.device.fail["confirm"] = [BootloaderError("busy")] * 2
    await node.run()
    assert node.device.calls.count("confirm") == 3
    assert node.source.results[0].outcome is Outcome.CONFIRMED


async def test_a_confirmation_that_never_works_is_taken_back(node: Node) -> None:
    node.device.fail["confirm"] = [BootloaderError("read-only")] * 99
    await node.run()
    assert node.device.booted == "a"
    assert node.source.results[0].outcome is Outcome.ROLLED_BACK


async def test_a_device_that_cannot_be_taken_back_is_reported_as_inconsistent(node: Node) -> None:
    node.check = Well("down")
    node.device.fail["revert"] = [BootloaderError("read-only")] * 99
    await node.run()
    (result,) = node.source.results
    assert result.outcome is Outcome.INCONSISTENT
    assert "read-only" in result.message


async def test_an_older_lease_is_refused_also_after_a_restart(node: Node) -> None:
    await node.run()
    node.source.orders = [replace(ORDER, action="6", fence=2)]
    await node.run()
    assert [(result.action, result.code) for result in node.source.results] == [("7", ""), ("6", "trust.fence")]
    assert node.device.calls.count("write") == 1


async def test_the_token_of_an_order_that_failed_is_remembered_too(node: Node) -> None:
    node.supply.fail["resolve"] = [UnknownTargetError("no")]
    await node.run()
    node.source.orders = [replace(ORDER, action="9", fence=2)]
    await node.run()
    assert node.source.results[-1].code == "trust.fence"


async def test_the_same_action_again_is_only_reported_again_under_the_same_id(node: Node) -> None:
    await node.run()
    node.source.orders = [ORDER]
    await node.run()
    first, *more = node.source.results
    assert more
    assert {result.id for result in more} == {first.id}
    assert node.device.calls.count("write") == 1


async def test_a_failed_action_is_carried_out_again_only_under_a_newer_lease(node: Node) -> None:
    node.supply.fail["resolve"] = [UnknownTargetError("not yet published")]
    await node.run()
    node.source.orders = [ORDER]
    await node.run()
    assert node.device.calls == []
    node.source.orders = [replace(ORDER, fence=4)]
    await node.run()
    assert node.source.results[-1].outcome is Outcome.CONFIRMED


async def test_another_action_for_what_runs_already_writes_nothing(node: Node) -> None:
    await node.run()
    node.source.orders = [replace(ORDER, action="8")]
    obtained = node.supply.obtained
    await node.run()
    assert node.device.calls.count("write") == 1
    assert node.supply.obtained == obtained
    assert (node.source.results[-1].action, node.source.results[-1].outcome) == ("8", Outcome.CONFIRMED)


async def test_a_version_that_the_factory_installed_is_recognised_after_verifying_it(node: Node) -> None:
    node.device.bundles["a"] = node.supply.bundle.digest
    node.supply.release = replace(node.supply.release, provenance="cms", bundle=None)
    agent = await node.run()
    assert node.device.calls == []
    assert agent.entry.in_slot("a") is not None


async def test_a_closed_maintenance_window_downloads_only_and_does_not_wear_out(node: Node) -> None:
    node.source.orders = [replace(ORDER, may_write=False)]
    agent = node.start()
    for _ in range(TRIES[State.FETCHING].limit + 2):
        assert await agent.turn() is Turn.WAITING
    assert node.device.calls == []
    node.source.orders = [ORDER]
    await node.run()
    assert node.source.results[-1].outcome is Outcome.CONFIRMED


async def test_a_cancellation_while_writing_is_honoured_and_answered(node: Node) -> None:
    node.look_s, node.device.hangs = 0.01, True
    node.source.orders = [ORDER, Cancel("7", "c7")]
    assert await node.start().turn() is Turn.ENDED
    assert node.device.calls == ["write", "write stopped"]
    (result,) = node.source.results
    assert (result.action, result.outcome, result.answers) == ("7", Outcome.CANCELLED, "c7")


async def test_a_cancellation_after_the_end_is_answered_as_too_late(node: Node) -> None:
    await node.run()
    node.source.orders = [Cancel("7", "c7")]
    await node.run()
    assert [(result.outcome, result.answers) for result in node.source.results] == [
        (Outcome.CONFIRMED, ""),
        (Outcome.CONFIRMED, "c7"),
    ]


async def test_a_cancellation_of_something_never_begun_is_accepted(node: Node) -> None:
    node.source.orders = [Cancel("5", "c5")]
    await node.run()
    assert [(result.action, result.outcome) for result in node.source.results] == [("5", Outcome.CANCELLED)]
    assert node.device.calls == []


async def test_a_newer_order_replaces_one_that_is_being_fetched(node: Node) -> None:
    node.look_s, node.supply.hangs = 0.01, True
    node.source.orders = [ORDER, replace(ORDER, action="8")]
    await node.run()
    assert [(result.action, result.outcome) for result in node.source.results[:2]] == [
        ("7", Outcome.CANCELLED),
        ("8", Outcome.CONFIRMED),
    ]


async def test_an_assigner_that_is_away_gets_every_result_later(node: Node) -> None:
    node.source.away = UnreachableError("away")
    await node.run()
    assert node.device.booted == "b"
    node.source.away = None
    await node.run()
    assert [result.outcome for result in node.source.results] == [Outcome.CONFIRMED]


async def test_a_hook_may_veto_the_write(node: Node) -> None:
    node.hooks = Hooks([Hook(Moment.BEFORE_WRITE, ("false",), 30)])
    await node.run()
    assert node.device.calls == []
    assert [(result.outcome, result.code) for result in node.source.results] == [(Outcome.FAILED, HandlerError.code)]


async def test_a_hook_may_veto_the_restart(node: Node) -> None:
    node.hooks = Hooks([Hook(Moment.BEFORE_RESTART, ("false",), 30)])
    await node.run()
    assert node.device.calls == ["write"]
    assert node.source.results[0].outcome is Outcome.ROLLED_BACK


async def test_a_device_that_restarts_in_every_test_is_taken_back(node: Node) -> None:
    agent = node.start()
    assert await agent.turn() is Turn.EXIT
    node.device.power_on()
    journal = Journal(Disk(), node.folder / "journal.json")
    for _ in range(TRIES[State.TESTING].limit):
        agent = node.start()
        await agent._resume()
        assert entry_from_mapping(journal.read()).state is State.TESTING
    await node.run()
    assert node.device.booted == "a"
    assert "interrupted" in node.source.results[-1].message


async def test_a_slot_switched_by_hand_during_the_write_is_never_written(node: Node) -> None:
    node.device.fail["write"] = [UnreachableError("away")]
    await node.start().turn()
    node.device.booted = "b"
    node.device.calls.clear()
    await node.run()
    assert "write" not in node.device.calls
    assert node.source.results[0].outcome is Outcome.FAILED


async def test_a_floor_that_was_not_raised_is_raised_at_the_next_start(node: Node) -> None:
    await node.run()
    node.floor.values = MemoryFloor().values
    node.source.orders = [None]
    await node.run()
    assert node.floor.values.security_counter == 1


async def test_a_trial_that_nobody_ordered_here_is_tested_and_confirmed(node: Node) -> None:
    node.device.states["b"], node.device.trial, node.device.booted = SlotState.PENDING, "b", "b"
    node.source.orders = [None]
    agent = await node.run()
    assert node.device.calls == ["confirm"]
    assert agent.entry.outcome is Outcome.CONFIRMED


async def test_an_operator_returns_to_the_previous_version(node: Node) -> None:
    node.supply.release = replace(node.supply.release, security_counter=0)
    await node.run()
    assert await node.start().roll_back("line 3 stands still") is Turn.EXIT
    node.device.power_on()
    node.source.orders = [None]
    agent = await node.run()
    assert node.device.booted == "a"
    assert (agent.entry.outcome, agent.entry.message) == (Outcome.ROLLED_BACK, "line 3 stands still")


async def test_an_operator_cannot_return_below_the_security_floor(node: Node) -> None:
    await node.run()
    with pytest.raises(RollbackError, match="the floor is 1"):
        await node.start().roll_back("please")
    assert node.device.booted == "b"


async def test_an_operator_cannot_return_to_nothing(node: Node) -> None:
    with pytest.raises(StateError, match="no previous version"):
        await node.start().roll_back("please")


async def test_an_operator_confirms_a_trial_that_its_checks_do_not(node: Node) -> None:
    await node.start().turn()
    node.device.power_on()
    node.check = Well("one sensor is missing")
    assert await node.start().confirm() is Turn.ENDED
    assert node.device.states["b"] is SlotState.ACTIVE
    with pytest.raises(StateError, match="no version is on trial"):
        await node.start().confirm()


async def test_while_it_writes_it_tells_how_far_it_is(node: Node) -> None:
    node.look_s, node.device.hangs = 0.01, True
    node.source.orders = [ORDER, UnreachableError("away for a moment"), None, Cancel("7", "c7")]
    await node.start().turn()
    assert (State.WRITING, 50, 100) in {(report.state, report.done, report.total) for report in node.source.reports}


async def test_an_older_lease_is_refused_also_after_an_operator_stepped_in(node: Node) -> None:
    node.supply.release = replace(node.supply.release, security_counter=0)
    await node.run()
    await node.start().roll_back("line 3 stands still")
    node.device.power_on()
    node.source.orders = [replace(ORDER, action="6", fence=2)]
    await node.run()
    assert node.source.results[-1].code == "trust.fence"


async def test_an_older_lease_is_refused_also_after_a_file_was_installed_by_hand(node: Node) -> None:
    await node.run()
    node.source.orders = [Offer("file-1", file=Path("brought.swu"))]
    await node.run()
    node.source.orders = [replace(ORDER, action="6", fence=2)]
    await node.run()
    assert [result.code for result in node.source.results] == ["", "", "trust.fence"]


async def test_a_slot_that_is_being_written_is_not_relied_on(node: Node) -> None:
    held = Entry(action="7").holding("b", node.supply.release).enter(State.FETCHING)
    following = await node.start()._steps.fetch(held, ORDER, lambda _done, _total: None)
    assert following.state is State.WRITING
    assert following.in_slot("b") is None


async def test_a_driver_that_wrote_another_slot_than_expected_is_not_followed(node: Node) -> None:
    node.device.wrong_slot = True
    await node.run()
    assert node.device.calls == ["write"]
    assert node.source.results[0].code == "device.slot"


async def test_a_process_that_dies_in_every_download_gives_the_order_up(node: Node) -> None:
    class DiedError(BaseException):
        """Not even an error: the process is gone."""

    async def die(release: Release, progress: Callable[[int, int], None]) -> VerifiedBundle:
        del release, progress
        raise DiedError

    node.supply.obtain = die  # type: ignore[method-assign]  # this process dies
    for _ in range(TRIES[State.FETCHING].limit):
        with pytest.raises(DiedError):
            await node.start().turn()
    await node.run()
    assert node.source.results[0].outcome is Outcome.FAILED
    assert "interrupted" in node.source.results[0].message
