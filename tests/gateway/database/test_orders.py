"""Open orders are put together by what is wanted and what runs."""

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.database.queries.orders import open_orders
from gateway.database.records import ActionOutcome, End, OpenOrder, Running
from gateway.fleet.nodes import Assigner, Order
from tests.builders.fleet import Clock, Shelf, register


async def orders(database: Database) -> tuple[OpenOrder, ...]:
    async with database.reading() as transaction:
        return await open_orders(transaction)


async def test_nodes_with_the_same_order_and_the_same_version_are_one_row_and_what_ended_is_none(
    database: Database, clock: Clock, shelf: Shelf
) -> None:
    await register(database, clock, "a", "b", running=Running("1.1", "a" * 64, "x"))
    await register(database, clock, "c", running=Running("1.0", "", "y"))
    await register(database, clock, "d")
    assigner = Assigner(database, shelf, clock)
    assert await orders(database) == ()
    for nodes in (("c",), ("a", "b")):
        await assigner.assign(Order("1.2", nodes, "test"))
    wanted = next(info for info in shelf.targets("plant") if info.custom.version == "1.2")
    rows = [(order.path, order.sha256, order.running, order.nodes) for order in await orders(database)]
    assert rows == [
        (wanted.path, wanted.sha256, Running("1.0"), 1),
        (wanted.path, wanted.sha256, Running("1.1", "a" * 64), 2),
    ]
    async with database.writing() as transaction:
        for node in ("a", "b"):
            (open_one,) = await actions.unfinished(transaction, node)
            await actions.close(transaction, open_one.id, End(clock(), ActionOutcome.SUCCESS, "", ""))
    assert [order.nodes for order in await orders(database)] == [1]


async def test_whoever_watches_hears_of_what_was_written_and_of_nothing_else(database: Database, clock: Clock) -> None:
    heard: list[str] = []
    database.watch(lambda: heard.append("changed"))
    await orders(database)
    assert heard == []
    await register(database, clock, "a")
    assert heard == ["changed"]
    with pytest.raises(ZeroDivisionError):
        async with database.writing():
            assert 1 / 0
    assert heard == ["changed"]
