"""Relayed deployments: terms and origin of actions, tokens and confirmations of nodes, digests, and what is told upstream.

Written out here and not taken from `gateway.database.tables`: this step must stay what it was. A test compares both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Widen nodes and actions, and make the tables of the upstreams."""
    for column in _node_columns():
        op.add_column("nodes", column)
    for column in _action_columns():
        op.add_column("actions", column)
    _digests()
    _outgoing()
    _standings()


def _node_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind_fixed", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("token", sa.String(64)),
        sa.Column("accepts", sa.String(16), nullable=False, server_default="tuf"),
        sa.Column("auto_confirm", sa.JSON(none_as_null=True)),
        sa.Column("boot_id", sa.String(64), nullable=False, server_default=""),
    ]


def _action_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("provenance", sa.String(16), nullable=False, server_default="tuf"),
        sa.Column("handling", sa.String(16), nullable=False, server_default="forced"),
        sa.Column("forced_at", sa.DateTime(timezone=True)),
        sa.Column("opens", sa.DateTime(timezone=True)),
        sa.Column("closes", sa.DateTime(timezone=True)),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("source", sa.String(64), nullable=False, server_default=""),
        sa.Column("offers", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("installed", sa.DateTime(timezone=True)),
        sa.Column("boot_id", sa.String(64), nullable=False, server_default=""),
    ]


def _digests() -> None:
    op.create_table(
        "digests",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("sha1", sa.String(40), nullable=False),
        sa.Column("md5", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_digests"),
    )


def _outgoing() -> None:
    op.create_table(
        "outgoing",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("upstream", sa.String(80), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("matter", sa.String(24), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("report", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("delivered", sa.DateTime(timezone=True)),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outgoing"),
        sa.UniqueConstraint("upstream", "report", name="uq_outgoing_upstream"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outgoing_upstream_delivered", "outgoing", ["upstream", "delivered"])


def _standings() -> None:
    op.create_table(
        "standings",
        sa.Column("upstream", sa.String(80), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("attributes", sa.String(64), nullable=False),
        sa.Column("next_poll", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("upstream", "node", name="pk_standings"),
    )
