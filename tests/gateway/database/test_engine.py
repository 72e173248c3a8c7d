import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.database.engine import Database, View, sqlite_url
from gateway.database.queries import settings
from update.errors import BusyError, ConfigurationError, CorruptError, NoSpaceError, StoreError


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)]
)
async def test_every_connection_is_durable_and_keeps_its_references(database: Database, pragma: str, value: object) -> None:
    async with database.reading() as first, database.reading() as second:
        for transaction in (first, second):
            assert (await transaction.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value


async def test_a_unit_of_work_that_raises_leaves_nothing_behind(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.writing() as transaction:
            await settings.put(transaction, "half", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_half_way()
    async with database.reading() as transaction:
        assert await settings.find(transaction, "half") is None


async def test_a_cancelled_unit_of_work_leaves_nothing_behind_and_lets_the_next_one_in(database: Database) -> None:
    inside = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.writing() as transaction:
            await settings.put(transaction, "half", 1)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.writing() as transaction:
        assert await settings.find(transaction, "half") is None


async def test_units_of_work_that_read_before_they_write_lose_no_update(database: Database) -> None:
    async def count() -> None:
        async with database.writing() as transaction:
            value = await settings.find(transaction, "count") or 0
            assert isinstance(value, int)
            await settings.put(transaction, "count", value + 1)

    await asyncio.gather(*(count() for _ in range(40)))
    async with database.reading() as transaction:
        assert await settings.find(transaction, "count") == 40


async def test_writers_of_one_process_wait_for_each_other_and_not_for_a_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.database.engine._SQLITE_PRAGMAS", ("PRAGMA journal_mode=WAL", "PRAGMA busy_timeout=0"))
    database = await Database.open(sqlite_url(tmp_path / "impatient.db"))

    async def write(number: int) -> None:
        async with database.writing() as transaction:
            await settings.put(transaction, f"key {number}", number)

    await asyncio.gather(*(write(number) for number in range(10)))
    await database.close()


async def test_a_reader_sees_one_state_while_a_writer_commits(database: Database) -> None:
    async with database.reading() as reader:
        assert await settings.find(reader, "key") is None
        async with database.writing() as writer:
            await settings.put(writer, "key", "new")
        assert await settings.find(reader, "key") is None


async def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "odd name %41?#.db")
    first = await Database.open(url)
    async with first.writing() as transaction:
        await settings.put(transaction, "key", {"a": [1, None]})
    await first.close()
    second = await Database.open(url)
    async with second.reading() as transaction:
        assert await settings.find(transaction, "key") == {"a": [1, None]}
    await second.close()


async def test_a_database_held_by_another_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.database.engine._SQLITE_PRAGMAS", ("PRAGMA journal_mode=WAL", "PRAGMA busy_timeout=1"))
    database = await Database.open(sqlite_url(tmp_path / "gateway.db"))
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError):
            async with database.writing():
                pass
        other.execute("ROLLBACK")
    await database.close()


async def test_a_full_disk_is_named_and_nothing_is_half_written(database: Database) -> None:
    async def fill() -> None:
        async with database.writing() as transaction:
            await settings.put(transaction, "small", 1)
            await transaction.exec_driver_sql("PRAGMA max_page_count=1")
            await settings.put(transaction, "large", "x" * 1_000_000)

    with pytest.raises(NoSpaceError):
        await fill()
    async with database.reading() as transaction:
        assert await settings.find(transaction, "small") is None


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database at all" * 400)
    with pytest.raises(CorruptError):
        await Database.open(sqlite_url(tmp_path / "gateway.db"))


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        await Database.open(sqlite_url(tmp_path / "missing" / "gateway.db"))


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite+nothing:///x", "oracle+thick://x/y", "postgresql+nodriver://x/y"])
async def test_a_url_that_means_no_database_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"gateway\.database"):
        await Database.open(url)


async def test_a_look_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError, match="readonly"):
        await database.look(lambda view: view.exec_driver_sql("DELETE FROM settings"))


async def test_a_look_waits_for_no_writer(database: Database) -> None:
    async with database.writing() as transaction:
        await settings.put(transaction, "key", 1)
        assert await database.look(lambda view: view.exec_driver_sql("SELECT count(*) FROM settings").scalar_one()) == 0


async def test_a_database_without_a_file_is_looked_at_in_turn() -> None:
    database = await Database.open("sqlite+aiosqlite:///:memory:")
    try:
        assert await database.look(lambda view: view.exec_driver_sql("SELECT count(*) FROM nodes").scalar_one()) == 0
    finally:
        await database.close()


async def test_a_look_that_raises_leaves_the_next_one_alone(database: Database) -> None:
    def fail(_view: View) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.look(fail)
    assert await database.look(lambda view: view.exec_driver_sql("SELECT 1").scalar_one()) == 1


async def test_a_look_is_one_view_whatever_is_committed_meanwhile(database: Database, tmp_path: Path) -> None:
    def count(view: View) -> int:
        return int(view.exec_driver_sql("SELECT count(*) FROM settings").scalar_one())

    def look(view: View) -> tuple[int, int]:
        before = count(view)
        with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
            other.execute("INSERT INTO settings VALUES ('key', '1')")
        return before, count(view)

    assert await database.look(look) == (0, 0)
    assert await database.look(count) == 1
