import asyncio
from datetime import datetime, timedelta

import pytest

from gateway.database.engine import Database
from gateway.database.queries import nodes
from gateway.database.records import Node
from gateway.fleet.intervals import Intervals
from gateway.fleet.presence import Presence
from gateway.status import Status, StoreState
from tests.builders.fleet import Clock, Shelf, register
from update.errors import NoSpaceError


async def stored(database: Database, name: str) -> Node:
    async with database.reading() as transaction:
        found = await nodes.find(transaction, name)
    assert found is not None
    return found


async def test_a_time_is_known_at_once_and_written_together_with_the_others(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2", "n3")
    presence, writings = Presence(database, clock), list[None]()
    before = clock()
    database.watch(lambda: writings.append(None))
    clock.advance(7)
    assert [presence.note(name) for name in ("n1", "n2", "n1")] == [clock()] * 3
    assert presence.last_seen(await stored(database, "n1")) == clock()
    assert presence.last_seen(await stored(database, "n3")) == before
    assert (await stored(database, "n1")).last_seen == before
    await presence.write()
    assert [(await stored(database, name)).last_seen for name in ("n1", "n2", "n3")] == [clock(), clock(), before]
    assert len(writings) == 1


async def test_nothing_is_written_of_nobody(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    presence, writings = Presence(database, clock), list[None]()
    presence.note("n1")
    database.watch(lambda: writings.append(None))
    await presence.write()
    await presence.write()
    assert len(writings) == 1


async def test_what_another_gateway_saw_later_is_shown(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    here, there = Presence(database, clock), Presence(database, clock)
    here.note("n1")
    clock.advance(60)
    there.note("n1")
    await there.write()
    await here.write()
    assert here.last_seen(await stored(database, "n1")) == clock()


async def test_the_last_times_are_written_when_it_is_ended(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    presence = Presence(database, clock)
    clock.advance(7)

    async def fail_at_work() -> None:
        async with presence.kept():
            presence.note("n1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_at_work()
    assert (await stored(database, "n1")).last_seen == clock()


async def test_times_are_written_again_and_again(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    presence, written = Presence(database, clock, every_s=0.01), asyncio.Event()
    database.watch(written.set)
    task = asyncio.create_task(presence.run())
    try:
        for _ in range(2):
            clock.advance(7)
            presence.note("n1")
            written.clear()
            async with asyncio.timeout(30):
                await written.wait()
            assert (await stored(database, "n1")).last_seen == clock()
    finally:
        task.cancel()


async def test_a_full_disk_costs_no_time_that_was_noted(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(database, clock, "n1")
    presence = Presence(database, clock)
    clock.advance(7)
    presence.note("n1")

    async def refuse(*_: object) -> None:
        raise NoSpaceError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.database.queries.contacts.seen", refuse)
        await presence.write()
    assert (await stored(database, "n1")).last_seen == clock() - timedelta(seconds=7)
    await presence.write()
    assert (await stored(database, "n1")).last_seen == clock()


async def test_a_node_that_was_just_here_is_not_shown_as_late(database: Database, clock: Clock, shelf: Shelf) -> None:
    await register(database, clock, "n1", "n2")
    presence = Presence(database, clock)
    clock.advance(3600)
    presence.note("n1")

    class NoStore:
        async def state(self) -> StoreState:
            raise AssertionError

    status = Status(
        database,
        shelf,
        NoStore(),
        now=clock,
        name="gw",
        version="1",
        intervals=Intervals(300),
        last_seen=presence.last_seen,
    )
    shown: dict[str, tuple[datetime, bool]] = {node.id: (node.last_seen, node.late) for node in await status.nodes()}
    assert shown == {"n1": (clock(), False), "n2": (clock() - timedelta(hours=1), True)}
