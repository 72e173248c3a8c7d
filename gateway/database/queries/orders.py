"""What is ordered and not ended, put together by what is wanted and what runs: thousands of nodes are a few rows."""

from sqlalchemy import func, select

from gateway.database.engine import Transaction
from gateway.database.records import ActionState, ClientKind, OpenOrder, Running
from gateway.database.tables import actions, nodes
from update.digest import Digest


async def open_orders(transaction: Transaction) -> tuple[OpenOrder, ...]:
    """Every release that an open action wants, and from what, the oldest order first."""
    alike = (
        actions.c.repository,
        actions.c.path,
        actions.c.sha256,
        nodes.c.kind,
        nodes.c.running_version,
        nodes.c.running_sha256,
    )
    statement = (
        select(*alike, func.count().label("nodes"))
        .join_from(actions, nodes, actions.c.node == nodes.c.id)
        .where(actions.c.state == ActionState.OPEN)
        .group_by(*alike)
        .order_by(func.min(actions.c.id))
    )
    return tuple(
        OpenOrder(
            repository=row.repository,
            path=row.path,
            sha256=Digest(row.sha256),
            kind=ClientKind(row.kind),
            running=Running(row.running_version, row.running_sha256),
            nodes=row.nodes,
        )
        for row in await transaction.execute(statement)
    )
