import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.schema import CreateTable

from gateway.database import schema
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import actions, coordinations, nodes, settings
from gateway.database.records import Commit, Stage, Terms
from gateway.database.tables import METADATA
from update.errors import FormatVersionError
from update.trust.verified import Provenance

NEWEST = "0004"
LATER_STEP = '''
"""A later release."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"


def upgrade():
    op.add_column("settings", sa.Column("note", sa.Text(), nullable=False, server_default="none yet"))
    {more}
'''

NODE_OF_VERSION_1 = """INSERT INTO nodes VALUES
('n1', 'agent', 'site', 'fingerprint', 'board:1', '{}', 0, '1.1', 'digest', 'a', 3, '2026-11-20', '2026-11-20')"""
ACTION_OF_VERSION_1 = """INSERT INTO actions VALUES
(7, 'n1', 'plant', 'os/1.2.swu', 'digest', 1000, '1.2', 3, 'commit', 'open', 'site', 'uid 0', '', '2026-11-20',
NULL, NULL, NULL, NULL, NULL, NULL)"""


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))


@pytest.fixture
def later_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The steps of a later release: this one's and one more."""
    steps = tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    for file in (schema._MIGRATIONS / "env.py", *schema._MIGRATIONS.glob("versions/v*.py")):
        (steps / file.relative_to(schema._MIGRATIONS)).write_bytes(file.read_bytes())
    (steps / "versions" / "v9999_later.py").write_text(LATER_STEP.format(more="", newest=NEWEST))
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


async def test_a_database_is_upgraded_by_a_later_release_and_keeps_its_content(
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


async def test_a_version_1_database_keeps_its_nodes_and_actions(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
        connection.exec_driver_sql(NODE_OF_VERSION_1)
        connection.exec_driver_sql(ACTION_OF_VERSION_1)
    engine.dispose()
    database = await Database.open(sqlite_url(file))
    async with database.reading() as transaction:
        node = await nodes.find(transaction, "n1")
        action = await actions.find(transaction, 7)
    await database.close()
    assert node is not None
    assert (node.fence, node.accepts, node.token, node.kind_fixed) == (3, Provenance.TUF, None, False)
    assert action is not None
    assert (action.terms, action.offers, action.source) == (Terms(), 0, "")
    assert (action.release.version, action.release.provenance) == ("1.2", Provenance.TUF)
    assert (action.hold, action.stage, action.staged, action.commit) == (None, Stage.NONE, None, Commit.COMMIT)


async def test_a_version_3_database_gets_coordinated_releases_and_keeps_its_actions(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
        connection.exec_driver_sql(NODE_OF_VERSION_1)
        connection.exec_driver_sql(ACTION_OF_VERSION_1)
        schema.upgrade(connection, "0003")
        connection.exec_driver_sql("UPDATE actions SET installed = '2026-11-20 10:00:00', boot_id = 'b7'")
    engine.dispose()
    database = await Database.open(sqlite_url(file))
    async with database.reading() as transaction:
        action = await actions.find(transaction, 7)
        assert await coordinations.live(transaction) == ()
        assert await coordinations.held(transaction) == {}
    await database.close()
    assert action is not None
    assert (action.boot_id, action.hold, action.stage) == ("b7", None, Stage.NONE)


async def test_a_newer_database_is_refused_and_left_alone(
    tmp_path: Path, later_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", later_release)
        await (await Database.open(sqlite_url(file))).close()
    before = file.read_bytes()
    with pytest.raises(FormatVersionError, match=rf"9999.*up to {NEWEST}"):
        await Database.open(sqlite_url(file))
    assert file.read_bytes() == before


async def test_a_step_that_fails_in_the_middle_leaves_the_old_tables(
    tmp_path: Path, later_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.db"
    await (await Database.open(sqlite_url(file))).close()
    (later_release / "versions" / "v9999_later.py").write_text(LATER_STEP.format(more="raise ZeroDivisionError", newest=NEWEST))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", later_release)
        with pytest.raises(ZeroDivisionError):
            await Database.open(sqlite_url(file))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWEST,)]
        assert "note" not in [row[1] for row in connection.execute("PRAGMA table_info(settings)")]


def test_the_tables_mean_the_same_on_postgresql() -> None:
    """Compiled for the other dialect: 32-bit ids made by the server, times with their zone, and no word of SQLite."""
    dialect = make_url("postgresql+asyncpg://").get_dialect()()
    statements = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in METADATA.sorted_tables}
    assert "id SERIAL NOT NULL" in statements["actions"]
    assert "id BIGSERIAL NOT NULL" in statements["reports"]
    assert "created TIMESTAMP WITH TIME ZONE NOT NULL" in statements["actions"]
    assert "AUTOINCREMENT" not in " ".join(statements.values())
