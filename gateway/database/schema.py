"""The version of the tables: upgraded step by step when a database is opened, never downgraded.

A step is a file in `migrations/versions`, run by Alembic inside the one transaction of the opening: after a crash the
tables are those of the old or of the new release. A database of a newer release is refused and left as it is.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from update.errors import FormatVersionError

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to `revision` within the caller's transaction; `FormatVersionError` if they are newer than known."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    _refuse_newer(MigrationContext.configure(connection).get_current_heads(), ScriptDirectory.from_config(config))
    command.upgrade(config, revision)


def _refuse_newer(found: tuple[str, ...], scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if unknown := sorted(set(found) - known):
        raise FormatVersionError(
            f"the database has version {', '.join(unknown)}, this release knows up to {scripts.get_current_head()}; "
            "start the newer release that wrote it, or restore the database of this one from a backup"
        )
