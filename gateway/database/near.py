"""Looking into SQLite in place: a connection that only reads, used from the event loop itself.

A few rows by their keys are in memory; handing the question to the driver's thread and back costs many times what answering
it takes. With WAL a reader waits for no writer. One connection stays open, and each look is one transaction of it, begun and
ended past SQLAlchemy, whose bookkeeping for that costs as much again as a query.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.engine import URL

_PRAGMAS = ("PRAGMA query_only=ON", "PRAGMA busy_timeout=0")
_Seen = TypeVar("_Seen")


class Near:
    """One file; opened at the first look, which finds it made and upgraded. To be used by one thread."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url.set(drivername="sqlite"), poolclass=StaticPool)
        self._view: Connection | None = None

    def look(self, read: Callable[[Connection], _Seen]) -> _Seen:
        """What `read` finds, in one consistent view. Errors: SQLAlchemy's."""
        if self._view is None:
            self._view = self._opened()
        driver = self._view.connection.driver_connection
        assert driver is not None
        driver.execute("BEGIN")
        try:
            return read(self._view)
        finally:
            driver.rollback()

    def close(self) -> None:
        """Close it; a later look would open it again."""
        if self._view is not None:
            self._view.close()
            self._view = None
        self._engine.dispose()

    def _opened(self) -> Connection:
        view = self._engine.connect()
        driver = view.connection.driver_connection
        assert driver is not None
        driver.isolation_level = None  # nothing begins by itself
        for pragma in _PRAGMAS:
            driver.execute(pragma)
        return view
