"""An attached device gets its orders, and is judged, as any node is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, Commit, Hold, Node, Running, Terms
from gateway.fleet.attached.build import ReservedNames, _register
from gateway.fleet.attached.crossing import Crossing
from gateway.fleet.attached.orders import ATTACHED, Desk, DeskSource
from gateway.fleet.fitness import UNJUDGED, OfferedIfFit
from gateway.fleet.nodes import Assigner, Order
from gateway.fleet.ownership import Ownership
from gateway.fleet.progress import Progress
from gateway.fleet.telling import NOBODY
from gateway.sections.attached import AttachedSection
from gateway.south.ddi.resources import AsOrdered
from node_agent.config import KindSection
from node_agent.record import Report
from node_agent.source import Cancel, Offer
from node_agent.states import Outcome, State
from tests.builders.fleet import Clock, Shelf, register, reports_about
from update.errors import ConfigurationError, NotFoundError, SilentError, StoreError, UnreachableError
from update.identity import Hardware
from update.plans.plan import Lost
from update.wire.attributes import NodeFacts

NODE = "motor-1"
LONG_S = 30.0
Ordering = Callable[[str], Awaitable[Action]]


@dataclass(frozen=True, slots=True)
class Place:
    database: Database
    progress: Progress
    desk: Desk
    clock: Clock

    async def node(self) -> Node:
        return (await self.progress.standing(NODE)).node

    async def action(self, number: int) -> Action:
        async with self.database.reading() as transaction:
            found = await actions.find(transaction, number)
        assert found is not None
        return found


def motor(node: str = NODE) -> AttachedSection:
    driver = KindSection(kind="mcuboot", options={"host": "192.0.2.7"})
    return AttachedSection(id=node, hardware="board:1", repository="plant", driver=driver)


@pytest.fixture
async def place(database: Database, clock: Clock) -> Place:
    progress = Progress(database, clock)
    desk = Desk(NODE, progress, OfferedIfFit(AsOrdered(), UNJUDGED, progress), clock)
    database.watch(desk.news.set)
    await _register(database, progress, desk, motor())
    return Place(database, progress, desk, clock)


@pytest.fixture
def order(place: Place, shelf: Shelf) -> Ordering:
    async def order(release: str) -> Action:
        wanted = Order(release=release, nodes=(NODE,), requested_by="uid 0")
        (made,) = await Assigner(place.database, shelf, place.clock).assign(wanted)
        assert made.action is not None
        return made.action

    return order


def report(action: Action, outcome: Outcome | None = None, **more: object) -> Report:
    said = Report(
        id="5f0e0b4d-8c36-5a55-8f1b-8a9a6f3d2c11" if outcome else "5f0e0b4d-8c36-5a55-8f1b-8a9a6f3d2c12",
        action=str(action.id),
        fence=action.fence,
        state=State.REPORTING if outcome else State.WRITING,
        outcome=outcome,
        version=action.release.version,
    )
    return replace(said, **more)  # type: ignore[arg-type]  # fields by their names


async def test_a_device_is_a_node_before_it_has_answered_for_the_first_time(place: Place, order: Ordering) -> None:
    node = await place.node()
    assert (node.fingerprint, node.hardware) == (ATTACHED, Hardware("board", "1"))
    assert (await order("1.2")).release.version == "1.2"


async def test_a_second_start_keeps_what_is_known_to_run(place: Place) -> None:
    await place.desk.describe(NodeFacts(Hardware("board", "1"), "1.1", None, "a"))
    await _register(place.database, place.progress, place.desk, motor())
    assert (await place.node()).running == Running("1.1", "", "a")


async def test_the_name_of_a_node_that_enrolled_itself_is_refused(place: Place, clock: Clock) -> None:
    await register(place.database, clock, "node-1")
    with pytest.raises(ConfigurationError, match="attached node-1"):
        await _register(place.database, place.progress, place.desk, motor("node-1"))


async def test_nobody_enrols_by_the_name_of_a_device() -> None:
    class Tokens:
        async def redeem(self, node: str, token: str) -> bool:
            return token.startswith("good")

    spared = ReservedNames(Tokens(), {NODE})
    assert not await spared.redeem(NODE, "good")
    assert await spared.redeem("node-1", "good")
    assert not await spared.redeem("node-1", "bad")


async def test_an_order_is_offered_with_what_the_agent_checks(place: Place, order: Ordering) -> None:
    assert await place.desk.next() is None
    action = await order("1.2")
    offer = await place.desk.next()
    assert isinstance(offer, Offer)
    release = action.release
    assert (offer.action, offer.fence, offer.may_write) == (str(action.id), action.fence, True)
    assert (offer.repository, offer.target, offer.sha256) == (release.repository, release.path, release.sha256)
    assert (await place.action(action.id)).offered is not None


async def test_a_decision_about_several_devices_reaches_it_with_its_limit(place: Place, order: Ordering) -> None:
    action = await order("1.2")
    held = replace(action, commit=Commit.HOLD, hold=Hold(90, Lost.KEEP))
    offer = place.desk._offer(held, held.release)
    assert (offer.commit, offer.hold_s, offer.lost) == ("hold", 90, "keep")


async def test_what_may_not_be_written_yet_is_only_fetched(place: Place, order: Ordering) -> None:
    action = await order("1.2")
    async with place.database.writing() as transaction:
        await actions.set_terms(transaction, action.id, Terms(opens=place.clock().replace(year=2027)))
    offer = await place.desk.next()
    assert isinstance(offer, Offer)
    assert not offer.may_write


async def test_what_its_agent_saw_running_is_believed_without_a_signature(place: Place, order: Ordering) -> None:
    action = await order("1.2")
    await place.desk.next()
    await place.desk.hear(report(action))
    assert (await place.action(action.id)).end is None
    await place.desk.hear(report(action, Outcome.CONFIRMED, slot="b"))
    end = (await place.action(action.id)).end
    assert end is not None
    assert end.outcome is ActionOutcome.SUCCESS
    assert (await place.node()).running == Running("1.2", action.release.sha256, "b")
    async with place.database.reading() as transaction:
        assert [each.body is not None for each in await reports_about(transaction, action.id)] == [True, True]


async def test_another_version_than_the_ordered_one_is_no_success(place: Place, order: Ordering) -> None:
    action = await order("1.2")
    await place.desk.next()
    await place.desk.hear(report(action, Outcome.CONFIRMED, version="1.1"))
    assert (await place.action(action.id)).end is None, "installed, and not proved"


async def test_a_cancellation_is_heard_and_answered(place: Place, order: Ordering) -> None:
    action = await order("1.2")
    await place.desk.next()
    await Ownership(place.database, place.clock, NOBODY).cancel(NODE, "no more")
    stop = await place.desk.next()
    assert stop == Cancel(action=str(action.id), id=str(action.id))
    await place.desk.hear(report(action, Outcome.CANCELLED, answers=str(action.id)))
    ended = await place.action(action.id)
    assert ended.state is ActionState.CLOSED


async def test_a_wait_ends_with_a_new_order_and_not_with_other_news(place: Place, order: Ordering) -> None:
    assert await place.desk.next() is None
    waiting = asyncio.create_task(place.desk.wait(LONG_S * 10))
    async with place.database.writing() as transaction:
        await nodes.runs(transaction, NODE, "0.9")
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    await order("1.2")
    async with asyncio.timeout(LONG_S):
        await waiting
    assert isinstance(await place.desk.next(), Offer)
    await place.desk.wait(0.01)


async def test_what_the_device_runs_is_told_after_a_start_and_after_an_end(place: Place, order: Ordering) -> None:
    asked: list[str] = []

    async def facts() -> NodeFacts:
        asked.append("")
        if len(asked) == 1:
            raise SilentError("not yet")
        return NodeFacts(Hardware("board", "1"), f"0.{len(asked)}", None, "a")

    source = DeskSource(Crossing(), place.desk, facts)
    await source.describe()
    assert (await place.node()).running.version == ""
    for _ in range(2):
        await source.describe()
        assert (await place.node()).running.version == "0.2"
    action = await order("1.2")
    await source.next()
    await source.report(report(action))
    await source.describe()
    assert len(asked) == 2
    await source.report(report(action, Outcome.FAILED))
    await source.describe()
    assert len(asked) == 3


async def test_what_was_begun_without_an_order_has_no_number(place: Place) -> None:
    source = DeskSource(Crossing(), place.desk, lambda: pytest.fail("not asked"))
    with pytest.raises(NotFoundError):
        await source.report(Report(id="x", action="operator-1", fence=0, state=State.REPORTING, outcome=Outcome.ROLLED_BACK))


async def test_a_gateway_whose_disk_is_full_is_away_to_its_devices() -> None:
    async def refuse() -> None:
        raise StoreError("no space left")

    with pytest.raises(UnreachableError, match="no space left"):
        await Crossing().call(refuse)
