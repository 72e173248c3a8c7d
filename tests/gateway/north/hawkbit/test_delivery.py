"""What hawkBit is told arrives: in order, at least once, with exactly one end, within its quotas, whatever breaks on the way."""

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database.queries import outgoing
from gateway.database.records import Outgoing
from gateway.north.hawkbit import telling
from gateway.simulators.hawkbit import Faults, HawkbitSimulator
from gateway.simulators.hawkbit_actions import Quotas, SimulatedAction
from tests.builders.fleet import Clock
from tests.builders.north_site import COMPANY, NorthSite, bundle_bytes, north_site
from tests.gateway.north.hawkbit.conftest import TOKEN
from update.errors import UnauthorizedError, UnreachableError

ENDS = {"finished", "error", "canceled"}
BEGUN = "Installing Update Chunk Artifacts."


async def begun(site: NorthSite, simulator: HawkbitSimulator, bundle: bytes) -> SimulatedAction:
    """An action that the node has begun, and hawkBit knows that it has."""
    number = simulator.holdings.assign("n1", simulator.holdings.publish("os", "1.2", "os.swu", bundle))
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    await site.fleet.progress.offer("n1", action.id)
    await site.say("n1", "proceeding", "none", BEGUN)
    await site.deliver()
    return simulator.holdings.actions[number]


def ends(action: SimulatedAction) -> list[str]:
    return [entry.type for entry in action.entries if entry.type in ENDS]


def lines(action: SimulatedAction) -> list[str]:
    return [line or "" for entry in action.entries for line in entry.messages]


async def messages(site: NorthSite, action: SimulatedAction) -> tuple[Outgoing, ...]:
    async with site.database.reading() as transaction:
        return await outgoing.of_action(transaction, COMPANY, "n1", str(action.id))


@pytest.mark.parametrize("faults", [Faults(closed_status=404), Faults(closed_status=410), Faults(takes_closed=True)])
@pytest.mark.parametrize("finished", ["success", "failure"])
async def test_an_answer_that_was_lost_brings_no_second_end(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, finished: str, faults: Faults
) -> None:
    action = await begun(site, simulator, bundle)
    simulator.faults = faults
    await site.say("n1", "closed", finished)
    faults.unanswered = 1
    assert isinstance((await site.deliver()).trouble, UnreachableError)
    faults.unanswered = 1
    assert (await site.deliver()).left == 0
    assert ends(action) == ["finished" if finished == "success" else "error"]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(absent=True), UnreachableError),
        (Faults(refusing=True), UnauthorizedError),
        (Faults(forbidding=True), UnauthorizedError),
        (Faults(untrusting=True), UnauthorizedError),
    ],
)
async def test_who_is_not_hawkbit_swallows_no_result(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, faults: Faults, error: type[Exception]
) -> None:
    action = await begun(site, simulator, bundle)
    await site.say("n1", "closed", "success", "Update Installed.")
    simulator.faults = faults
    assert isinstance((await site.deliver()).trouble, error)
    simulator.faults = Faults()
    await site.deliver()
    assert ends(action) == ["finished"]


async def test_a_full_history_holds_up_nobody_else_and_is_not_taken_for_an_end(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes
) -> None:
    action = await begun(site, simulator, bundle)
    action.quotas = Quotas(entries=len(action.entries))
    await site.add_node("n2")
    await site.poll()
    other = simulator.holdings.assign("n2", action.wanted.id)
    await site.poll()
    await site.say("n1", "closed", "failure", "the slot is too small")
    await site.say("n2", "closed", "failure", "the slot is too small")
    assert (await site.deliver()).left == 0
    assert ends(simulator.holdings.actions[other]) == ["error"]
    assert ends(action) == []
    assert "given up" in (await messages(site, action))[-1].trouble
    for _ in range(20):  # it is open there, and cannot be closed
        await site.poll()
        await site.deliver()
    assert len(await messages(site, action)) < 10
    action.quotas = Quotas()
    async with site.database.writing() as transaction:
        await outgoing.resend(transaction, [(await messages(site, action))[-1].id])
    await site.deliver()
    assert ends(action) == ["error"]


async def test_a_thousand_words_of_a_node_become_few_messages_in_order(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes
) -> None:
    action = await begun(site, simulator, bundle)
    for number in range(900):
        await site.say("n1", "proceeding", "none", f"line {number:04} " + "x" * 600)
    await site.say("n1", "closed", "success", "Update Installed.")
    done = await site.deliver()
    assert (done.left, done.trouble) == (0, None)
    assert len(action.entries) <= 2 * 900 / 50 + 5, "a line of 610 characters goes as two"
    said = [line[:9] for line in lines(action) if line.startswith("line ")]
    assert said == [f"line {number:04}" for number in range(900)]
    assert ends(action) == ["finished"]


async def test_a_node_that_is_heard_again_and_again_leaves_room_for_its_end(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Quotas().entries - telling.MOST_MESSAGES >= 100, "for what is told at the end, and for looks at the deployment"
    monkeypatch.setattr(telling, "MOST_MESSAGES", 20)
    simulator.holdings.quotas = Quotas(entries=30)
    action = await begun(site, simulator, bundle)
    for number in range(40):
        await site.say("n1", "proceeding", "none", f"still at it {number}")
        await site.deliver()
    await site.say("n1", "closed", "success", "Update Installed.")
    await site.deliver()
    assert len(action.entries) <= 30
    assert ends(action) == ["finished"]


async def test_what_came_by_hand_is_told_as_each_server_takes_it(site: NorthSite, simulator: HawkbitSimulator) -> None:
    await site.fleet.progress.installed_elsewhere("n1", "os", "1.3")
    await site.deliver()
    assert simulator.holdings.targets["n1"].installed == ("os", "1.3")
    simulator.faults.without_newer = True
    await site.fleet.progress.installed_elsewhere("n1", "os", "1.4")
    await site.deliver()
    assert simulator.holdings.targets["n1"].attributes["fieldrelay.installed.version"] == "1.4"


async def test_a_confirmation_is_asked_for_and_passed_on(site: NorthSite, simulator: HawkbitSimulator, bundle: bytes) -> None:
    simulator.holdings.needs_confirmation = True
    number = simulator.holdings.assign("n1", simulator.holdings.publish("os", "1.2", "os.swu", bundle))
    await site.poll()
    waiting = await site.action("n1")
    assert waiting is not None
    assert waiting.state == "waiting"
    await site.fleet.confirmations.answer("n1", waiting.id, confirmed=False, details=("not on a Friday",))
    await site.fleet.confirmations.answer("n1", waiting.id, confirmed=True, details=())
    await site.deliver()
    action = simulator.holdings.actions[number]
    assert [entry.type for entry in action.entries] == ["wait_for_confirmation", "wait_for_confirmation", "running"]
    assert "not on a Friday" in lines(action)
    await site.poll()
    await site.succeed("n1")
    await site.deliver()
    assert ends(action) == ["finished"]


FAULT = st.sampled_from(["none", "failing", "unanswered", "flooded", "absent", "refusing", "gone", "restart"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    turns=st.lists(FAULT, max_size=8),
    words=st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
    finished=st.sampled_from(["success", "failure"]),
)
def test_whatever_breaks_there_is_one_end_and_all_words_before_it_in_order(
    turns: list[str], words: list[str], finished: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(see_through(Path(folder), turns, words, finished))


async def see_through(folder: Path, turns: list[str], words: list[str], finished: str) -> None:
    """One action, with a fault at each round of delivery; a restart forgets all but the database."""
    async with HawkbitSimulator(TOKEN) as simulator:
        bundle, left, number, clock = bundle_bytes(folder), list(turns), 0, Clock()
        spoken = [f"{place} {word}" for place, word in enumerate(words)]
        while True:
            async with north_site(folder, simulator.url, TOKEN) as site:
                site.clock.now = clock.now
                if not number:
                    await site.add_node("n1")
                    await site.poll()
                    number = (await begun(site, simulator, bundle)).id
                    for word in spoken:
                        await site.say("n1", "proceeding", "none", word)
                    await site.say("n1", "closed", finished, "Update Installed.")
                clock = site.clock
                if await deliver_through(site, simulator, left):
                    continue
                simulator.faults = Faults()
                await site.deliver()
                await site.poll()
                assert (await site.deliver()).left == 0
                break
        action = simulator.holdings.actions[number]
        assert len(ends(action)) == 1
        assert action.entries[-1].type == ends(action)[0] or action.entries[-1].type == "retrieved"
        places = [lines(action).index(word) for word in spoken]
        assert all(first < second for first, second in pairwise(places))


async def deliver_through(site: NorthSite, simulator: HawkbitSimulator, left: list[str]) -> bool:
    """Deliver once for each fault that is left, until one is a restart."""
    while left:
        fault = left.pop(0)
        if fault == "restart":
            return True
        simulator.faults = Faults(
            failing=fault == "failing",
            flooded=fault == "flooded",
            unanswered=fault == "unanswered",
            absent=fault == "absent",
            refusing=fault == "refusing",
            closed_status=404 if fault == "gone" else 410,
        )
        await site.deliver()
    return False
