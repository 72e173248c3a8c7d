"""Coordinated releases: where a node waits for their decision, how long it does, and the runs with their members."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Widen actions, and make both tables."""
    op.add_column("actions", sa.Column("hold_s", sa.Integer()))
    op.add_column("actions", sa.Column("lost", sa.String(16)))
    op.add_column("actions", sa.Column("stage", sa.String(16), nullable=False, server_default=""))
    op.add_column("actions", sa.Column("staged", sa.DateTime(timezone=True)))
    _coordinations()
    _members()


def _coordinations() -> None:
    op.create_table(
        "coordinations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plan", sa.String(300), nullable=False),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("repository", sa.String(64), nullable=False),
        sa.Column("requested_by", sa.String(160), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("entered", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("paused", sa.DateTime(timezone=True)),
        sa.Column("shut", sa.String(64), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("remarks", sa.JSON(), nullable=False),
        sa.Column("ending", sa.String(16)),
        sa.Column("ended", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_coordinations"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_coordinations_ended", "coordinations", ["ended"])


def _members() -> None:
    op.create_table(
        "members",
        sa.Column("coordination", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("release", sa.JSON(), nullable=False),
        sa.Column("previous", sa.JSON(none_as_null=True)),
        sa.Column("hold", sa.Boolean(), nullable=False),
        sa.Column("reverts", sa.Boolean(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("interlocks", sa.JSON(), nullable=False),
        sa.Column("course", sa.String(16), nullable=False),
        sa.Column("action", sa.Integer()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("coordination", "node", name="pk_members"),
        sa.ForeignKeyConstraint(["coordination"], ["coordinations.id"], name="fk_members_coordination"),
        sa.ForeignKeyConstraint(["node"], ["nodes.id"], name="fk_members_node"),
        sa.ForeignKeyConstraint(["action"], ["actions.id"], name="fk_members_action"),
    )
    op.create_index("ix_members_node", "members", ["node"])
