"""What the gateway's tests share: a real database in a file, a clock, and a shelf of releases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.database.engine import Database, sqlite_url
from tests.builders.fleet import Clock, Shelf, bundle


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"plant": [bundle("1.1", "board:1"), bundle("1.2", "board:1"), bundle("1.2", "other:#RE:^[12]$")]})


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(sqlite_url(tmp_path / "gateway.db"))
    yield opened
    await opened.close()
