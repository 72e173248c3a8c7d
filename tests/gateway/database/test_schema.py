import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url
from sqlalchemy.schema import CreateTable

from gateway.database import schema
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import settings
from gateway.database.tables import METADATA
from update.errors import FormatVersionError

SECOND_STEP = '''
"""A later release."""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("settings", sa.Column("note", sa.Text(), nullable=False, server_default="none yet"))
    {more}
'''


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))


@pytest.fixture
def later_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The steps of a later release: this one's and one more."""
    steps = tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    for name in ("env.py", "versions/v0001_first.py"):
        (steps / name).write_bytes((schema._MIGRATIONS / name).read_bytes())
    (steps / "versions" / "v0002_second.py").write_text(SECOND_STEP.format(more=""))
    return steps


async def test_an_empty_database_gets_exactly_the_tables_of_the_code(database: Database) -> None:
    async with database.reading() as transaction:
        assert await transaction.run_sync(differences) == []


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "gateway.db")
    for _ in range(2):
        database = await Database.open(url)
        async with database.reading() as transaction:
            assert await transaction.run_sync(differences) == []
        await database.close()


async def test_a_version_1_database_is_upgraded_and_keeps_its_content(
    tmp_path: Path, later_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_url(tmp_path / "gateway.db")
    first = await Database.open(url)
    async with first.writing() as transaction:
        await settings.put(transaction, "kept", 1)
    await first.close()
    monkeypatch.setattr(schema, "_MIGRATIONS", later_release)
    second = await Database.open(url)
    async with second.reading() as transaction:
        assert await settings.find(transaction, "kept") == 1
        assert (await transaction.exec_driver_sql("SELECT note FROM settings")).scalar_one() == "none yet"
    await second.close()


async def test_a_newer_database_is_refused_and_left_alone(
    tmp_path: Path, later_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", later_release)
        await (await Database.open(sqlite_url(file))).close()
    before = file.read_bytes()
    with pytest.raises(FormatVersionError, match=r"0002.*up to 0001"):
        await Database.open(sqlite_url(file))
    assert file.read_bytes() == before


async def test_a_step_that_fails_in_the_middle_leaves_the_old_tables(
    tmp_path: Path, later_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.db"
    await (await Database.open(sqlite_url(file))).close()
    (later_release / "versions" / "v0002_second.py").write_text(SECOND_STEP.format(more="raise ZeroDivisionError"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", later_release)
        with pytest.raises(ZeroDivisionError):
            await Database.open(sqlite_url(file))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert "note" not in [row[1] for row in connection.execute("PRAGMA table_info(settings)")]


def test_the_tables_mean_the_same_on_postgresql() -> None:
    """Compiled for the other dialect: 32-bit ids made by the server, times with their zone, and no word of SQLite."""
    dialect = make_url("postgresql+asyncpg://").get_dialect()()
    statements = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in METADATA.sorted_tables}
    assert "id SERIAL NOT NULL" in statements["actions"]
    assert "id BIGSERIAL NOT NULL" in statements["reports"]
    assert "created TIMESTAMP WITH TIME ZONE NOT NULL" in statements["actions"]
    assert "AUTOINCREMENT" not in " ".join(statements.values())
