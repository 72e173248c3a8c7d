"""A device is not restarted while the machine runs: neither into a new version, nor back."""

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.agent import Turn
from node_agent.interlocks import InputCheck, Interlock, Interlocks
from node_agent.source import Cancel, Offer
from node_agent.states import Outcome, State
from tests.node_agent.doubles import Assigner, Device, Supply, Well
from tests.node_agent.node import ORDER, Node, Time
from update.wire.assignment import Commit


@pytest.fixture
def stopped() -> Well:
    return Well()


@pytest.fixture
def node(tmp_path: Path, stopped: Well) -> Node:
    made = Node(tmp_path, Device(), Supply(tmp_path), Assigner([ORDER]))
    made.locks = Interlocks([Interlock("press-stopped", stopped, 600)], lambda: made.time.monotonic_s)
    return made


async def test_a_shut_interlock_is_waited_for_before_the_trial_and_named(node: Node, stopped: Well) -> None:
    stopped.reason = "the press runs"
    agent = node.start()
    assert await agent.turn() is Turn.WAITING
    assert await agent.turn() is Turn.WAITING
    assert (agent.entry.state, agent.entry.tries, node.device.calls) == (State.ACTIVATING, 0, ["write"])
    assert node.source.reports[-1].code == "device.interlock"
    assert node.source.reports[-1].message == "waiting for interlock press-stopped: scripted the press runs"
    stopped.reason = None
    assert await agent.turn() is Turn.EXIT
    assert node.device.calls == ["write", "activate", "restart"]


async def test_it_is_read_again_right_before_the_restart(node: Node, stopped: Well) -> None:
    stopped.answers, stopped.reason = [None], "the press runs again"
    agent = node.start()
    assert await agent.turn() is Turn.WAITING
    assert (agent.entry.state, node.device.calls) == (State.RESTARTING, ["write", "activate"])


async def test_starts_of_the_agent_while_it_waits_are_no_tries(node: Node, stopped: Well) -> None:
    stopped.reason = "the press runs"
    for _ in range(8):
        node.locks = Interlocks([Interlock("press-stopped", stopped, 600)])
        assert await node.start().turn() is Turn.WAITING
    stopped.reason = None
    await node.run()
    assert node.source.results[0].outcome is Outcome.CONFIRMED


async def test_a_way_back_waits_for_ever_without_restarting_a_machine_that_runs(node: Node, stopped: Well) -> None:
    agent = node.start()
    assert await agent.turn() is Turn.EXIT
    node.device.power_on()
    node.check.reason, stopped.reason = "down", "the press runs"
    agent = node.start()
    for _ in range(9):
        assert await agent.turn() is Turn.WAITING
        node.time.passes(10_000)
    assert (agent.entry.state, node.device.calls[-1]) == (State.REVERTING, "revert")
    stopped.reason = None
    assert await agent.turn() is Turn.EXIT


@pytest.mark.parametrize(
    ("first", "state", "outcome"), [([], State.ACTIVATING, Outcome.FAILED), ([None], State.RESTARTING, Outcome.ROLLED_BACK)]
)
async def test_before_a_new_version_the_wait_has_an_end(
    node: Node, stopped: Well, first: list[str | None], state: State, outcome: Outcome
) -> None:
    stopped.answers, stopped.reason = first, "the press runs"
    agent = node.start()
    assert await agent.turn() is Turn.WAITING
    assert agent.entry.state is state
    node.time.passes(601)
    assert await agent.turn() is Turn.ENDED
    assert "restart" not in node.device.calls
    assert (node.source.results[0].outcome, node.source.results[0].code) == (outcome, "device.interlock")


@pytest.mark.parametrize("stop", [Cancel("7", "c7"), replace(ORDER, commit=Commit.ABORT)])
async def test_a_wait_can_be_ended_from_outside(node: Node, stopped: Well, stop: Offer | Cancel) -> None:
    node.source.orders = [replace(ORDER, commit=Commit.HOLD)]
    stopped.reason = "the press runs"
    agent = node.start()
    assert await agent.turn() is Turn.WAITING
    node.source.orders = [stop]
    assert await agent.turn() is Turn.ENDED
    assert node.source.results[0].outcome is Outcome.CANCELLED


async def test_an_input_is_open_only_with_its_value(tmp_path: Path) -> None:
    check = InputCheck(tmp_path / "value", "1", 60)
    assert "cannot be read" in (await check.failure({}) or "")
    check.path.write_text("1\n")
    assert await check.failure({}) is None
    check.path.write_text("0\n")
    assert "must be '1'" in (await check.failure({}) or "")
    assert "no file" in (await InputCheck(tmp_path, "1", 60).failure({}) or "")


async def test_an_input_that_hangs_is_shut_and_what_it_says_too_late_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, goes_on, read = InputCheck(tmp_path / "value", "1", 0.01), threading.Event(), os.read
    check.path.write_text("1")

    def slow(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        goes_on.wait(60)
        return data

    monkeypatch.setattr("node_agent.interlocks.os.read", slow)
    for _ in range(2):
        assert await check.failure({}) == "does not answer within 0.01 s"
    check.path.write_text("0")
    goes_on.set()
    reason: str | None = "does not answer"
    async with asyncio.timeout(60):
        while reason is not None and reason.startswith("does not answer"):
            reason = await check.failure({})
            await asyncio.sleep(0.001)
    assert "must be '1'" in (reason or "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=6), st.lists(st.floats(0, 5000), max_size=6))
async def test_the_first_that_is_shut_is_named_and_its_own_deadline_counts(shut: list[bool], passing: list[float]) -> None:
    time = Time()
    locks = Interlocks(
        [Interlock(f"lock-{number}", Well("shut" if each else None), 100 * number) for number, each in enumerate(shut)],
        lambda: time.monotonic_s,
    )
    found = await locks.shut({})
    assert (found.name if found else None) == (f"lock-{shut.index(True)}" if any(shut) else None)
    if found is None:
        return
    locks.wait()
    for passes_s in passing:
        time.passes(passes_s)
        waited_s = time.monotonic_s - 50.0
        assert locks.waited_too_long(found) == (waited_s >= found.deadline_s)
        hours = int(waited_s // 3600)
        assert locks.words(found) == f"waiting for interlock {found.name}" + (f" for {hours} h" if hours else "")
    locks.end()
    assert (locks.waiting, locks.words(found)) == (False, f"waiting for interlock {found.name}")
