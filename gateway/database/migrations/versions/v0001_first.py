"""The tables of the first release: nodes, actions, reports, tokens, settings.

Written out here and not taken from `gateway.database.tables`: this step must stay what it was. A test compares both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    _nodes()
    _actions()
    _reports()
    _tokens()
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("assigner", sa.String(80), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("hardware", sa.String(160), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("attributes_wanted", sa.Boolean(), nullable=False),
        sa.Column("running_version", sa.String(300), nullable=False),
        sa.Column("running_sha256", sa.String(64), nullable=False),
        sa.Column("slot", sa.String(64), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
    )


def _actions() -> None:
    op.create_table(
        "actions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("repository", sa.String(64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("commit", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("assigner", sa.String(80), nullable=False),
        sa.Column("requested_by", sa.String(160), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("offered", sa.DateTime(timezone=True)),
        sa.Column("superseded_by", sa.Integer()),
        sa.Column("ended", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String(16)),
        sa.Column("code", sa.String(64)),
        sa.Column("message", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name="fk_actions_node"),
        sa.ForeignKeyConstraint(["superseded_by"], ["actions.id"], name="fk_actions_superseded_by"),
        sa.UniqueConstraint("node", "fence", name="uq_actions_node"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_actions_node_state", "actions", ["node", "state"])


def _reports() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("report", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("execution", sa.String(16), nullable=False),
        sa.Column("finished", sa.String(16), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.ForeignKeyConstraint(["action"], ["actions.id"], name="fk_reports_action"),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name="fk_reports_node"),
        sa.UniqueConstraint("node", "report", name="uq_reports_node"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_reports_action", "reports", ["action"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("used_by", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
        sqlite_autoincrement=True,
    )
