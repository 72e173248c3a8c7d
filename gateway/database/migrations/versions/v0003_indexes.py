"""Indexes for what is asked at every contact: whose token this is, what succeeded last, and what was told of an action."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Without them each of these questions reads a whole table, or all actions of a node."""
    op.create_index("ix_nodes_token", "nodes", ["token"])
    op.create_index("ix_nodes_assigner_id", "nodes", ["assigner", "id"])
    op.create_index("ix_actions_node_outcome", "actions", ["node", "outcome"])
    op.create_index("ix_outgoing_upstream_node_source", "outgoing", ["upstream", "node", "source"])
