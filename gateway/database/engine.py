"""Opening the database and its units of work.

SQLite is the embedded default: WAL, so that readers never wait for the writer; `synchronous=FULL`, so that what was
committed survives a power loss (sqlite.org/pragma.html#pragma_synchronous); foreign keys on. The driver's own transaction
handling is switched off, because it begins a transaction only at the first change: a transaction that reads before it
writes could then find itself unable to write. A unit of work that writes takes the write lock at once instead.

What every poll of every node asks is a few rows by their keys: such a *look* is done in place (`near.py`).

PostgreSQL needs none of this; its URL is `postgresql+asyncpg://...`.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.database.near import Near
from gateway.database.schema import upgrade
from update.errors import BusyError, ConfigurationError, CorruptError, FieldrelayError, NoSpaceError, StoreError

Transaction = AsyncConnection
"""What every query function takes: one connection inside one unit of work."""
View = Connection
"""What the queries of a look take."""

_BUSY_TIMEOUT_MS = 5000
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
)
_WRITING = "fieldrelay_writing"
_Seen = TypeVar("_Seen")


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite database in `file`."""
    return URL.create("sqlite+aiosqlite", database=str(file)).render_as_string()


class Database:
    """The gateway's database. Use `open`; errors: `StoreError` and its kin, `BusyError`, `FormatVersionError`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._near = _near(engine)
        self._is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time; waiting here is fair and wakes at once, its own busy handler polls.
        self._writer: AbstractAsyncContextManager[object] = asyncio.Lock() if self._is_sqlite else nullcontext()
        self._watchers: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and bring the tables to this release's version."""
        engine = _make_engine(url)
        if engine.dialect.name == "sqlite":
            _try_sqlite(engine)
        database = cls(engine)
        try:
            async with database.writing() as transaction:
                await transaction.run_sync(upgrade)
        except BaseException:  # whatever happened, the driver's thread must not outlive the attempt
            await database.close()
            raise
        return database

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after every unit of work that this process has written; what others write is not noticed."""
        self._watchers.append(changed)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Transaction]:
        """A unit of work that changes nothing: one consistent view."""
        async with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    async def look(self, read: Callable[[View], _Seen]) -> _Seen:
        """What `read` finds, in one consistent view: a few rows by their keys, for it may be done in the event loop."""
        if self._near is None:
            async with self.reading() as transaction:
                return await transaction.run_sync(read)
        try:
            return self._near.look(read)
        except DBAPIError as error:
            raise _named(error.orig) from error

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[Transaction]:
        """A unit of work: all of it is durable when the block ends, none of it if the block raises."""
        async with _translated(), self._writer, self._engine.connect() as connection:
            writer = await connection.execution_options(**{_WRITING: True})
            async with writer.begin():
                yield writer
        for changed in self._watchers:
            changed()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
        if self._near is not None:
            self._near.close()


def _make_engine(url: str) -> AsyncEngine:
    try:
        engine = create_async_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            "gateway.database is no URL of a database that this installation can use; "
            "leave it empty for SQLite, or install the extra 'postgresql' and use postgresql+asyncpg://"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _near(engine: AsyncEngine) -> Near | None:
    """Where looks are done in place; None where the database is not a file of this machine."""
    file = engine.url.database or ":memory:"
    is_file = engine.dialect.name == "sqlite" and file != ":memory:" and not file.startswith("file:")
    return Near(engine.url) if is_file else None


def _try_sqlite(engine: AsyncEngine) -> None:
    """Open the file once without the driver: a first connection that fails would leave the driver's thread behind."""
    (file,), options = engine.dialect.create_connect_args(engine.url)
    try:
        with closing(sqlite3.connect(file, uri=bool(options.get("uri")))) as connection:
            for pragma in _SQLITE_PRAGMAS:
                connection.execute(pragma)
    except sqlite3.Error as error:
        raise _named(error) from error


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITING) else "BEGIN")


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    """Errors of the driver as leaves of the tree."""
    try:
        yield
    except DBAPIError as error:
        raise _named(error.orig) from error


def _named(error: BaseException | None) -> FieldrelayError:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_FULL":
            return NoSpaceError("the database cannot grow: no space left on its disk; free space and try again")
        case "SQLITE_BUSY" | "SQLITE_LOCKED" | "SQLITE_BUSY_SNAPSHOT":
            return BusyError(f"another process held the database for {_BUSY_TIMEOUT_MS} ms; end it and try again")
        case "SQLITE_CORRUPT" | "SQLITE_NOTADB":
            return CorruptError("the database file is damaged: restore it from a backup, or move it away and start anew")
        case _:
            return StoreError(f"the database refused: {error}")
