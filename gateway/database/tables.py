"""The tables, in types that SQLite and PostgreSQL share.

Times are UTC in `timestamp with time zone`; SQLite keeps them without a zone, so `as_utc` gives it back when reading.
Ids of actions are 32-bit and never used twice (`sqlite_autoincrement`; PostgreSQL's serial does the same).
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

NAME_CHARACTERS = 64
DIGEST_CHARACTERS = 64
VERSION_CHARACTERS = 300

nodes = Table(
    "nodes",
    METADATA,
    Column("id", String(NAME_CHARACTERS), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("assigner", String(80), nullable=False),
    Column("fingerprint", String(DIGEST_CHARACTERS), nullable=False),
    Column("hardware", String(160), nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("attributes_wanted", Boolean, nullable=False),
    Column("running_version", String(VERSION_CHARACTERS), nullable=False),
    Column("running_sha256", String(DIGEST_CHARACTERS), nullable=False),
    Column("slot", String(NAME_CHARACTERS), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("first_seen", DateTime(timezone=True), nullable=False),
    Column("last_seen", DateTime(timezone=True), nullable=False),
    Column("kind_fixed", Boolean, nullable=False, default=False),
    Column("token", String(DIGEST_CHARACTERS)),
    Column("accepts", String(16), nullable=False, default="tuf"),
    Column("auto_confirm", JSON(none_as_null=True)),
    Column("boot_id", String(NAME_CHARACTERS), nullable=False, default=""),
    Index(None, "token"),
    Index(None, "assigner", "id"),
)

actions = Table(
    "actions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("node", String(NAME_CHARACTERS), ForeignKey("nodes.id"), nullable=False),
    Column("repository", String(NAME_CHARACTERS), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(DIGEST_CHARACTERS), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("version", String(VERSION_CHARACTERS), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("commit", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("assigner", String(80), nullable=False),
    Column("requested_by", String(160), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("offered", DateTime(timezone=True)),
    Column("superseded_by", Integer, ForeignKey("actions.id")),
    Column("ended", DateTime(timezone=True)),
    Column("outcome", String(16)),
    Column("code", String(64)),
    Column("message", Text),
    Column("provenance", String(16), nullable=False, default="tuf"),
    Column("handling", String(16), nullable=False, default="forced"),
    Column("forced_at", DateTime(timezone=True)),
    Column("opens", DateTime(timezone=True)),
    Column("closes", DateTime(timezone=True)),
    Column("deadline", DateTime(timezone=True)),
    Column("source", String(NAME_CHARACTERS), nullable=False, default=""),
    Column("offers", Integer, nullable=False, default=0),
    Column("installed", DateTime(timezone=True)),
    Column("boot_id", String(NAME_CHARACTERS), nullable=False, default=""),
    Column("hold_s", Integer),
    Column("lost", String(16)),
    Column("stage", String(16), nullable=False, default=""),
    Column("staged", DateTime(timezone=True)),
    UniqueConstraint("node", "fence"),
    Index(None, "node", "state"),
    Index(None, "node", "outcome"),
    sqlite_autoincrement=True,
)

reports = Table(
    "reports",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("action", Integer, ForeignKey("actions.id"), nullable=False, index=True),
    Column("node", String(NAME_CHARACTERS), ForeignKey("nodes.id"), nullable=False),
    Column("report", String(NAME_CHARACTERS), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("received", DateTime(timezone=True), nullable=False),
    Column("execution", String(16), nullable=False),
    Column("finished", String(16), nullable=False),
    Column("details", JSON, nullable=False),
    Column("body", JSON(none_as_null=True)),
    UniqueConstraint("node", "report"),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", String(DIGEST_CHARACTERS), nullable=False, unique=True),
    Column("node", String(NAME_CHARACTERS), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Column("used_by", String(NAME_CHARACTERS), nullable=False),
    sqlite_autoincrement=True,
)

settings = Table(
    "settings",
    METADATA,
    Column("key", String(NAME_CHARACTERS), primary_key=True),
    Column("value", JSON, nullable=False),
)

digests = Table(
    "digests",
    METADATA,
    Column("sha256", String(DIGEST_CHARACTERS), primary_key=True),
    Column("sha1", String(40), nullable=False),
    Column("md5", String(32), nullable=False),
)

outgoing = Table(
    "outgoing",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("upstream", String(80), nullable=False),
    Column("node", String(NAME_CHARACTERS), nullable=False),
    Column("source", String(NAME_CHARACTERS), nullable=False),
    Column("matter", String(24), nullable=False),
    Column("final", Boolean, nullable=False),
    Column("report", String(NAME_CHARACTERS), nullable=False),
    Column("body", JSON, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", DateTime(timezone=True)),
    Column("delivered", DateTime(timezone=True)),
    Column("trouble", Text, nullable=False),
    UniqueConstraint("upstream", "report"),
    Index(None, "upstream", "delivered"),
    Index(None, "upstream", "node", "source"),
    sqlite_autoincrement=True,
)

standings = Table(
    "standings",
    METADATA,
    Column("upstream", String(80), primary_key=True),
    Column("node", String(NAME_CHARACTERS), primary_key=True),
    Column("attributes", String(DIGEST_CHARACTERS), nullable=False),
    Column("next_poll", DateTime(timezone=True)),
)

coordinations = Table(
    "coordinations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("plan", String(VERSION_CHARACTERS), nullable=False),
    Column("version", String(VERSION_CHARACTERS), nullable=False),
    Column("repository", String(NAME_CHARACTERS), nullable=False),
    Column("requested_by", String(160), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("entered", DateTime(timezone=True), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("paused", DateTime(timezone=True)),
    Column("shut", String(NAME_CHARACTERS), nullable=False),
    Column("terms", JSON, nullable=False),
    Column("remarks", JSON, nullable=False),
    Column("ending", String(16)),
    Column("ended", DateTime(timezone=True)),
    Index(None, "ended"),
    sqlite_autoincrement=True,
)

members = Table(
    "members",
    METADATA,
    Column("coordination", Integer, ForeignKey("coordinations.id"), primary_key=True),
    Column("node", String(NAME_CHARACTERS), ForeignKey("nodes.id"), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("release", JSON, nullable=False),
    Column("previous", JSON(none_as_null=True)),
    Column("hold", Boolean, nullable=False),
    Column("reverts", Boolean, nullable=False),
    Column("needs", JSON, nullable=False),
    Column("interlocks", JSON, nullable=False),
    Column("course", String(16), nullable=False),
    Column("action", Integer, ForeignKey("actions.id")),
    Column("tries", Integer, nullable=False),
    Column("since", DateTime(timezone=True)),
    Column("note", Text, nullable=False),
    Index(None, "node"),
)


def as_utc(moment: datetime) -> datetime:
    """A time as read from either database, with its zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def as_utc_or_none(moment: datetime | None) -> datetime | None:
    """The same for a column that may be null."""
    return None if moment is None else as_utc(moment)
