"""What every contact asks: the answers, and that none of them reads a whole table."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from gateway.database.engine import Database, Transaction, View
from gateway.database.queries import actions, contacts, nodes
from gateway.database.records import Action, ActionOutcome, ClientKind, End, Node, Release
from update.digest import digest_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.2")
TOKEN = digest_of(b"token")


async def register(transaction: Transaction, name: str) -> Node:
    return await nodes.register(transaction, name, kind=ClientKind.SWUPDATE, fingerprint=digest_of(b"n"), now=NOW)


async def order(transaction: Transaction, node: str, outcome: ActionOutcome | None = None) -> Action:
    fence = await nodes.raise_fence(transaction, node)
    added = await actions.add(transaction, node, RELEASE, fence=fence, assigner="site", requested_by="uid 0", reason="", now=NOW)
    if outcome is not None:
        await actions.close(transaction, added.id, End(NOW, outcome, "", ""))
    return added


async def standing(database: Database, node: str) -> tuple[Node, Action | None, int | None] | None:
    return await database.look(partial(contacts.standing, node=node))


async def test_a_node_stands_with_its_oldest_open_action_and_its_last_success(database: Database) -> None:
    async with database.writing() as transaction:
        known = await register(transaction, "n1")
        await register(transaction, "n2")
    assert await standing(database, "n1") == (known, None, None)
    async with database.writing() as transaction:
        succeeded = [await order(transaction, "n1", ActionOutcome.SUCCESS) for _ in range(2)]
        await order(transaction, "n1", ActionOutcome.FAILURE)
        waiting = [await order(transaction, "n1") for _ in range(2)]
        await order(transaction, "n2")
    found = await standing(database, "n1")
    assert found is not None
    assert found[0].id == "n1"
    assert found[1:] == (waiting[0], succeeded[-1].id)
    assert await standing(database, "n3") is None


async def test_a_token_finds_its_node_and_no_other(database: Database) -> None:
    async with database.writing() as transaction:
        for name in ("n1", "n2"):
            await register(transaction, name)
        await nodes.set_token(transaction, "n2", TOKEN)
    found = await database.look(partial(contacts.of_token, token=TOKEN))
    assert found is not None
    assert found.id == "n2"
    assert await database.look(partial(contacts.of_token, token=digest_of(b"other"))) is None


async def test_times_are_noted_together_and_never_set_back(database: Database) -> None:
    later = NOW + timedelta(seconds=7)
    async with database.writing() as transaction:
        for name in ("n1", "n2", "n3"):
            await register(transaction, name)
        await contacts.seen(transaction, {"n1": later, "n2": NOW - timedelta(days=1)})
        await contacts.seen(transaction, {})
        everyone = await nodes.everyone(transaction)
    assert [node.last_seen for node in everyone] == [later, NOW, NOW]


@pytest.mark.parametrize(
    ("look", "searched"),
    [
        (partial(contacts.standing, node="n1"), ["nodes", "actions", "actions", "actions"]),
        (partial(contacts.action, number=1), ["actions"]),
        (partial(contacts.of_token, token=TOKEN), ["nodes"]),
    ],
)
async def test_no_contact_reads_a_whole_table(database: Database, look: Callable[[View], object], searched: list[str]) -> None:
    """By SQLite's own word: every table is searched by an index (sqlite.org/eqp.html)."""
    async with database.writing() as transaction:
        await register(transaction, "n1")
        await order(transaction, "n1")
    asked: list[str] = []

    def listen(view: View) -> None:
        cursor = view.connection.dbapi_connection
        assert cursor is not None
        trace = getattr(cursor, "set_trace_callback")  # noqa: B009 - the driver's own, which its protocol does not name
        trace(asked.append)
        try:
            look(view)
        finally:
            trace(None)

    def explain(view: View) -> list[str]:
        return [row[3] for statement in asked for row in view.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]

    await database.look(listen)
    plan = await database.look(explain)
    assert sorted(step.split()[1] for step in plan if step.startswith("SEARCH")) == sorted(searched)
    assert not [step for step in plan if step.startswith("SCAN")]


async def test_the_last_success_is_found_without_reading_all_that_a_node_ever_did(database: Database) -> None:
    def explain(view: View) -> list[str]:
        asked = "SELECT max(id) FROM actions WHERE node = 'n1' AND outcome = 'success'"
        return [row[3] for row in view.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}")]

    assert [step.partition(" (")[2] for step in await database.look(explain)] == ["node=? AND outcome=?)"]


async def test_a_look_sees_what_was_committed_and_nothing_else(database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.writing() as transaction:
            await register(transaction, "n1")
            begun.set()
            await go_on.wait()

    task = asyncio.create_task(write())
    await begun.wait()
    assert await standing(database, "n1") is None
    go_on.set()
    await task
    assert await standing(database, "n1") is not None
