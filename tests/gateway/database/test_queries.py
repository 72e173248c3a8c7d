"""The contract of the queries: what every database behind them must do."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes, reports, tokens
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Commit, End, Release, ReportRecord, Running
from tests.builders.fleet import reports_about
from update.digest import digest_of
from update.errors import StoreError
from update.identity import Hardware

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
PRINT = digest_of(b"certificate")
RELEASE = Release("plant", "os/board-1.2.swu", digest_of(b"bundle"), 5_000_000_000, "1.2")


async def add_action(transaction: Transaction, node: str = "n1", release: Release = RELEASE) -> Action:
    fence = await nodes.raise_fence(transaction, node)
    return await actions.add(transaction, node, release, fence=fence, assigner="site", requested_by="uid 0", reason="", now=NOW)


async def add_node(database: Database, node: str = "n1") -> None:
    async with database.writing() as transaction:
        await nodes.register(transaction, node, kind=ClientKind.SWUPDATE, fingerprint=PRINT, now=NOW)


async def test_a_new_node_runs_something_unknown_and_is_asked_for_its_attributes(database: Database) -> None:
    await add_node(database)
    async with database.reading() as transaction:
        node = await nodes.find(transaction, "n1")
        assert node is not None
        assert (node.running, node.hardware, node.attributes_wanted, node.fence) == (Running(), None, True, 0)
        assert (node.first_seen, node.last_seen, node.assigner, node.kind) == (NOW, NOW, "site", ClientKind.SWUPDATE)
        assert await nodes.find(transaction, "n2") is None


async def test_what_a_node_says_of_itself_is_kept(database: Database) -> None:
    await add_node(database)
    running = Running("1.1", digest_of(b"old"), "b")
    async with database.writing() as transaction:
        await nodes.describe(transaction, "n1", attributes={"serial": "7"}, hardware=Hardware("board", "r2"), running=running)
        await nodes.seen(transaction, "n1", fingerprint=digest_of(b"renewed"), now=NOW + timedelta(seconds=5))
    async with database.reading() as transaction:
        (node,) = await nodes.everyone(transaction)
    assert (node.running, node.hardware, node.attributes) == (running, Hardware("board", "r2"), {"serial": "7"})
    assert (node.attributes_wanted, node.first_seen, node.last_seen) == (False, NOW, NOW + timedelta(seconds=5))
    assert node.fingerprint == digest_of(b"renewed")


async def test_times_come_back_in_utc_whatever_their_zone_was(database: Database) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    async with database.writing() as transaction:
        assert (
            await nodes.register(transaction, "n1", kind=ClientKind.AGENT, fingerprint=PRINT, now=elsewhere)
        ).first_seen == NOW


async def test_an_action_comes_back_as_it_was_ordered(database: Database) -> None:
    await add_node(database)
    async with database.writing() as transaction:
        added = await add_action(transaction)
    async with database.reading() as transaction:
        assert await actions.find(transaction, added.id) == added
        assert await actions.find(transaction, added.id + 1) is None
    assert (added.release, added.state, added.commit, added.end) == (RELEASE, ActionState.OPEN, Commit.COMMIT, None)
    assert added.fence == 1


async def test_fences_of_one_node_only_rise(database: Database) -> None:
    await add_node(database)
    await add_node(database, "n2")

    async def add() -> Action:
        async with database.writing() as transaction:
            return await add_action(transaction)

    added = await asyncio.gather(*(add() for _ in range(5)))
    assert sorted(action.fence for action in added) == [1, 2, 3, 4, 5]
    async with database.writing() as transaction:
        assert (await add_action(transaction, "n2")).fence == 1


async def test_an_action_for_nobody_is_refused(database: Database) -> None:
    with pytest.raises(StoreError):
        async with database.writing() as transaction:
            await actions.add(transaction, "nobody", RELEASE, fence=1, assigner="site", requested_by="", reason="", now=NOW)


async def test_ids_are_never_used_twice(database: Database) -> None:
    await add_node(database)
    async with database.writing() as transaction:
        first = await add_action(transaction)
        await transaction.exec_driver_sql("DELETE FROM actions")
        assert (await add_action(transaction)).id > first.id


async def test_a_closed_action_stays_as_it_was_closed(database: Database) -> None:
    await add_node(database)
    first, second = End(NOW, ActionOutcome.FAILURE, "device.health", "no"), End(NOW, ActionOutcome.SUCCESS, "", "")
    async with database.writing() as transaction:
        action = await add_action(transaction)
        await actions.close(transaction, action.id, first)
        await actions.close(transaction, action.id, second)
        await actions.mark_cancelling(transaction, action.id, superseded_by=None)
        await actions.reopen(transaction, action.id)
        closed = await actions.find(transaction, action.id)
        assert closed is not None
        assert (closed.end, closed.state) == (first, ActionState.CLOSED)
        assert await actions.unfinished(transaction, "n1") == ()


async def test_unfinished_actions_come_oldest_first_and_only_of_the_node(database: Database) -> None:
    await add_node(database)
    await add_node(database, "n2")
    async with database.writing() as transaction:
        first, second = await add_action(transaction), await add_action(transaction)
        other = await add_action(transaction, "n2")
        await actions.mark_cancelling(transaction, first.id, superseded_by=second.id)
        found = await actions.unfinished(transaction, "n1")
        latest = await actions.latest(transaction)
        third = await add_action(transaction, "n2", replace(RELEASE, sha256=digest_of(b"done")))
        await actions.close(transaction, third.id, End(NOW, ActionOutcome.SUCCESS, "", ""))
        wanted = await actions.wanted(transaction)
    assert wanted == {first.release.sha256}
    assert [action.id for action in found] == [first.id, second.id]
    assert (found[0].state, found[0].superseded_by) == (ActionState.CANCELLING, second.id)
    assert {node: action.id for node, action in latest.items()} == {"n1": second.id, "n2": other.id}


async def test_the_first_offer_counts(database: Database) -> None:
    await add_node(database)
    async with database.writing() as transaction:
        action = await add_action(transaction)
        await actions.mark_offered(transaction, action.id, now=NOW)
        await actions.mark_offered(transaction, action.id, now=NOW + timedelta(days=1))
        found = await actions.find(transaction, action.id)
    assert found is not None
    assert found.offered == NOW


async def test_a_report_sent_twice_is_kept_once(database: Database) -> None:
    await add_node(database)
    async with database.writing() as transaction:
        action = await add_action(transaction)
        report = ReportRecord(action.id, "n1", "uuid-1", 1, NOW, "proceeding", "none", ("a", "b"), {"state": "writing"})
        assert await reports.add(transaction, report)
        assert not await reports.add(transaction, report)
        assert await reports_about(transaction, action.id) == (report,)
        assert await reports.count(transaction, action.id) == 1
        assert await reports.count(transaction, action.id + 1) == 0


async def test_the_newest_figures_are_those_about_the_newest_action(database: Database) -> None:
    await add_node(database)
    async with database.writing() as transaction:
        old, new = await add_action(transaction), await add_action(transaction)

        async def tell(action: Action, name: str, body: dict[str, object] | None) -> ReportRecord:
            report = ReportRecord(action.id, "n1", name, 1, NOW, "proceeding", "none", (), body)
            assert await reports.add(transaction, report)
            return report

        await tell(new, "a", {"slot": "a"})
        newest = await tell(new, "b", {"slot": "b"})
        await tell(new, "c", None)
        await tell(old, "d", {"slot": "d"})
        assert await reports.latest(transaction) == {new.id: newest}


async def test_a_token_is_spent_once_in_time_by_the_node_it_is_for(database: Database) -> None:
    late = NOW + timedelta(hours=1)
    async with database.writing() as transaction:
        for name, node in (("any", ""), ("bound", "n1"), ("stale", "")):
            expires = NOW if name == "stale" else late
            await tokens.add(
                transaction, digest=digest_of(name.encode()), node=node, reason="bench", created=NOW, expires=expires
            )

    async def use(name: str, node: str) -> bool:
        async with database.writing() as transaction:
            return await tokens.use(transaction, digest_of(name.encode()), node=node, now=NOW)

    assert not await use("unknown", "n1")
    assert not await use("stale", "n1")
    assert not await use("bound", "n2")
    assert await use("bound", "n1")
    assert sorted(await asyncio.gather(*(use("any", f"n{number}") for number in range(5)))) == [False] * 4 + [True]
    async with database.reading() as transaction:
        spent = [token for token in await tokens.everything(transaction) if token.used_at]
    assert [(token.node, token.used_at) for token in spent] == [("", NOW), ("n1", NOW)]
    assert spent[1].used_by == "n1"
