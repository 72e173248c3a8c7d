import asyncio

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, Running
from gateway.fleet.issuing import Verdict
from gateway.fleet.nodes import Assigner, Order
from tests.builders.fleet import Clock, Shelf, bundle, register
from update.errors import AssignerError, HardwareError, UnknownNodeError, UnknownTargetError


@pytest.fixture
def assigner(database: Database, shelf: Shelf, clock: Clock) -> Assigner:
    return Assigner(database, shelf, clock)


def order(release: str, *names: str) -> Order:
    return Order(release=release, nodes=names or None, requested_by="uid 0", reason="test")


async def unfinished(database: Database, node: str = "n1") -> tuple[Action, ...]:
    async with database.reading() as transaction:
        return await actions.unfinished(transaction, node)


async def offer(database: Database, clock: Clock, action: int) -> None:
    async with database.writing() as transaction:
        await actions.mark_offered(transaction, action, now=clock())


async def test_an_order_makes_one_action_per_node_with_the_target_of_its_hardware(
    database: Database, clock: Clock, assigner: Assigner
) -> None:
    await register(database, clock, "n1", "n2")
    await register(database, clock, "n3", hardware="other:1")
    made = await assigner.assign(order("1.2"))
    assert [(each.node, each.verdict, each.release.path) for each in made] == [
        ("n1", Verdict.ORDERED, "os/board1-1.2.swu"),
        ("n2", Verdict.ORDERED, "os/board1-1.2.swu"),
        ("n3", Verdict.ORDERED, "os/other#RE^[12]$-1.2.swu"),
    ]
    (action,) = await unfinished(database)
    assert action == made[0].action
    assert (action.requested_by, action.reason, action.assigner, action.fence) == ("uid 0", "test", "site", 1)
    assert (action.release.length, action.release.version, action.created) == (1000, "1.2", clock())


async def test_only_the_named_nodes_are_meant_once_each(database: Database, clock: Clock, assigner: Assigner) -> None:
    await register(database, clock, "n1", "n2")
    made = await assigner.assign(order("1.2", "n2", "n2"))
    assert [each.node for each in made] == ["n2"]
    assert await unfinished(database, "n1") == ()


async def test_the_same_order_again_changes_nothing(database: Database, clock: Clock, assigner: Assigner) -> None:
    await register(database, clock, "n1")
    first = await assigner.assign(order("1.2"))
    again = await asyncio.gather(*(assigner.assign(order("1.2")) for _ in range(3)))
    assert {each.verdict for (each,) in again} == {Verdict.ALREADY_ORDERED}
    assert await unfinished(database) == (first[0].action,)


async def test_what_runs_already_is_not_ordered(database: Database, clock: Clock, assigner: Assigner) -> None:
    await register(database, clock, "n1", running=Running("1.2", bundle("1.2", "board:1").sha256, "a"))
    (made,) = await assigner.assign(order("1.2"))
    assert (made.verdict, made.action) == (Verdict.ALREADY_RUNNING, None)
    assert await unfinished(database) == ()


async def test_an_action_that_the_node_was_never_told_of_is_superseded_at_once(
    database: Database, clock: Clock, assigner: Assigner
) -> None:
    await register(database, clock, "n1")
    (old,) = await assigner.assign(order("1.1"))
    (new,) = await assigner.assign(order("1.2"))
    assert old.action is not None
    assert new.action is not None
    assert new.action.fence == old.action.fence + 1
    assert await unfinished(database) == (new.action,)
    async with database.reading() as transaction:
        closed = await actions.find(transaction, old.action.id)
    assert closed is not None
    assert closed.end is not None
    assert (closed.end.outcome, closed.superseded_by) == (ActionOutcome.SUPERSEDED, new.action.id)


async def test_an_action_that_may_have_begun_is_cancelled_first(database: Database, clock: Clock, assigner: Assigner) -> None:
    await register(database, clock, "n1")
    (old,) = await assigner.assign(order("1.1"))
    assert old.action is not None
    await offer(database, clock, old.action.id)
    (new,) = await assigner.assign(order("1.2"))
    assert new.action is not None
    found = await unfinished(database)
    assert [(action.id, action.state) for action in found] == [
        (old.action.id, ActionState.CANCELLING),
        (new.action.id, ActionState.OPEN),
    ]
    assert found[0].superseded_by == new.action.id


async def test_returning_to_an_order_that_is_being_cancelled_is_a_new_one(
    database: Database, clock: Clock, assigner: Assigner
) -> None:
    await register(database, clock, "n1")
    (first,) = await assigner.assign(order("1.1"))
    assert first.action is not None
    await offer(database, clock, first.action.id)
    await assigner.assign(order("1.2"))
    (back,) = await assigner.assign(order("1.1"))
    assert (back.verdict, back.action and back.action.fence) == (Verdict.ORDERED, 3)
    assert [action.fence for action in await unfinished(database)] == [1, 3]


async def test_what_is_being_cancelled_is_not_what_is_ordered(database: Database, clock: Clock, assigner: Assigner) -> None:
    await register(database, clock, "n1")
    (first,) = await assigner.assign(order("1.2"))
    assert first.action is not None
    async with database.writing() as transaction:
        await actions.mark_cancelling(transaction, first.action.id, superseded_by=None)
    (again,) = await assigner.assign(order("1.2"))
    assert again.verdict is Verdict.ORDERED


async def test_going_back_to_what_runs_is_an_order_while_another_one_is_open(
    database: Database, clock: Clock, assigner: Assigner
) -> None:
    await register(database, clock, "n1", running=Running("1.1", bundle("1.1", "board:1").sha256, "a"))
    await assigner.assign(order("1.2"))
    (back,) = await assigner.assign(order("1.1"))
    assert back.verdict is Verdict.ORDERED


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        (order("1.2", "n1", "lost", "gone"), (UnknownNodeError, "lost, gone")),
        (order("7.7"), (UnknownTargetError, "'7.7'")),
        (order("os/board1-1.2.swu"), (HardwareError, r"node n2 is third:9; .* node n3 has not said")),
        (order("1.2", "n1", "n4"), (AssignerError, r"n4 \(hawkbit:main\)")),
    ],
)
async def test_an_order_is_taken_for_all_its_nodes_or_for_none(
    database: Database, clock: Clock, assigner: Assigner, wanted: Order, refusal: tuple[type[Exception], str]
) -> None:
    await register(database, clock, "n1")
    await register(database, clock, "n2", hardware="third:9")
    await register(database, clock, "n3", hardware="")
    await register(database, clock, "n4")
    async with database.writing() as transaction:
        await transaction.exec_driver_sql("UPDATE nodes SET assigner = 'hawkbit:main' WHERE id = 'n4'")
    with pytest.raises(refusal[0], match=refusal[1]):
        await assigner.assign(wanted)
    for name in ("n1", "n2", "n3", "n4"):
        assert await unfinished(database, name) == ()
        async with database.reading() as transaction:
            node = await nodes.find(transaction, name)
        assert node is not None
        assert node.fence == 0


async def test_an_order_for_everyone_leaves_nodes_of_other_assigners_out(
    database: Database, clock: Clock, assigner: Assigner
) -> None:
    await register(database, clock, "n1", "n4")
    async with database.writing() as transaction:
        await transaction.exec_driver_sql("UPDATE nodes SET assigner = 'hawkbit:main' WHERE id = 'n4'")
    assert [each.node for each in await assigner.assign(order("1.2"))] == ["n1"]
