"""How each node stands with each upstream that the gateway speaks to on its behalf."""

from datetime import datetime

from sqlalchemy import insert, select, update

from gateway.database.engine import Transaction
from gateway.database.records import Standing
from gateway.database.tables import as_utc, as_utc_or_none
from gateway.database.tables import standings as table


async def find(transaction: Transaction, upstream: str, node: str) -> Standing:
    """How a node stands; with an upstream that never heard of it: not at all."""
    row = (await transaction.execute(select(table).where(table.c.upstream == upstream, table.c.node == node))).one_or_none()
    return (
        Standing(upstream, node, "", None)
        if row is None
        else Standing(row.upstream, row.node, row.attributes, as_utc_or_none(row.next_poll))
    )


async def note(transaction: Transaction, standing: Standing) -> None:
    """Keep how a node stands now."""
    own = (table.c.upstream == standing.upstream, table.c.node == standing.node)
    values = {"attributes": standing.attributes, "next_poll": _utc(standing.next_poll)}
    if not (await transaction.execute(update(table).where(*own).values(values))).rowcount:
        await transaction.execute(insert(table).values(upstream=standing.upstream, node=standing.node, **values))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else as_utc(moment)
