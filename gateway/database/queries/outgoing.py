"""What is told upstream: stored first, sent in the order of storing, kept until it was delivered."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from gateway.database.engine import Transaction
from gateway.database.records import Matter, Outgoing
from gateway.database.tables import as_utc, as_utc_or_none
from gateway.database.tables import outgoing as table

GIVEN_UP: Final = "given up: "
"""How the trouble of a message begins that its receiver refused for good."""
_LACKING: Final = or_(table.c.delivered.is_(None), table.c.trouble.startswith(GIVEN_UP))


async def add(
    transaction: Transaction,
    upstream: str,
    node: str,
    *,
    source: str,
    matter: Matter,
    final: bool,
    report: str,
    body: Mapping[str, object],
    now: datetime,
    not_before: datetime | None = None,
) -> bool:
    """Store one message; False, and nothing changed, if the upstream has a message of that `report` already."""
    same = select(table.c.id).where(table.c.upstream == upstream, table.c.report == report)
    if (await transaction.execute(same)).first() is not None:
        return False
    values: dict[str, object] = {
        "upstream": upstream,
        "node": node,
        "source": source,
        "matter": matter,
        "final": final,
        "report": report,
        "body": dict(body),
        "created": as_utc(now),
        "attempts": 0,
        "not_before": None if not_before is None else as_utc(not_before),
        "trouble": "",
    }
    await transaction.execute(insert(table).values(values))
    return True


async def waiting(transaction: Transaction, upstream: str, *, limit: int = 1000) -> tuple[Outgoing, ...]:
    """What an upstream was not yet told, in the order in which it is to be told."""
    own = (table.c.upstream == upstream, table.c.delivered.is_(None))
    rows = await transaction.execute(select(table).where(*own).order_by(table.c.id).limit(limit))
    return tuple(_record(row) for row in rows)


async def of_action(transaction: Transaction, upstream: str, node: str, source: str) -> tuple[Outgoing, ...]:
    """Everything that was or will be told about one action of one node, in order."""
    own = (table.c.upstream == upstream, table.c.node == node, table.c.source == source)
    return tuple(_record(row) for row in await transaction.execute(select(table).where(*own).order_by(table.c.id)))


async def count_waiting(transaction: Transaction) -> Mapping[str, int]:
    """How many messages each upstream was not yet told."""
    statement = select(table.c.upstream, func.count()).where(table.c.delivered.is_(None)).group_by(table.c.upstream)
    return {row[0]: row[1] for row in await transaction.execute(statement)}


async def undelivered(transaction: Transaction, *, limit: int = 10_000) -> tuple[Outgoing, ...]:
    """What some receiver does not have: what waits, and what was given up. The oldest first."""
    rows = await transaction.execute(select(table).where(_LACKING).order_by(table.c.id).limit(limit))
    return tuple(_record(row) for row in rows)


async def resend(transaction: Transaction, messages: Collection[int] | None) -> tuple[Outgoing, ...]:
    """Have these sent as soon as possible, also where they were given up; None: all that waits. Those that it was done for."""
    meant = table.c.delivered.is_(None) if messages is None else and_(_LACKING, table.c.id.in_(messages))
    rows = await transaction.execute(select(table).where(meant).order_by(table.c.id))
    found = tuple(_record(row) for row in rows)
    await transaction.execute(update(table).where(meant).values(delivered=None, not_before=None))
    return found


async def replace_body(transaction: Transaction, message: int, body: Mapping[str, object]) -> bool:
    """Have a message say more whose sending was not yet begun; False, and nothing changed, for another."""
    statement = update(table).where(table.c.id == message, table.c.attempts == 0, table.c.delivered.is_(None))
    return bool((await transaction.execute(statement.values(body=dict(body)))).rowcount)


async def begin(transaction: Transaction, message: int) -> Outgoing | None:
    """Before a message is sent: as it stands now, with the attempts before this one; from here on it says no more.

    None for one that was delivered meanwhile.
    """
    own = (table.c.id == message, table.c.delivered.is_(None))
    row = (await transaction.execute(select(table).where(*own).with_for_update())).one_or_none()
    if row is None:
        return None
    await transaction.execute(update(table).where(*own).values(attempts=table.c.attempts + 1, not_before=None))
    return _record(row)


async def mark_failed(transaction: Transaction, message: int, *, trouble: str, not_before: datetime) -> None:
    """Sending failed: again, not before that time."""
    values = {"trouble": trouble, "not_before": as_utc(not_before)}
    await transaction.execute(update(table).where(table.c.id == message).values(values))


async def mark_delivered(transaction: Transaction, message: int, *, now: datetime, trouble: str = "") -> None:
    """The upstream has it, or (`trouble`) says that it wants it no more."""
    values = {"delivered": as_utc(now), "trouble": trouble, "not_before": None}
    await transaction.execute(update(table).where(table.c.id == message).values(values))


async def sweep(transaction: Transaction, before: datetime) -> None:
    """Forget what was delivered before that time."""
    await transaction.execute(delete(table).where(table.c.delivered < as_utc(before)))


def _record(row: Row[tuple[object, ...]]) -> Outgoing:
    return Outgoing(
        id=row.id,
        upstream=row.upstream,
        node=row.node,
        source=row.source,
        matter=Matter(row.matter),
        final=row.final,
        report=row.report,
        body=row.body,
        created=as_utc(row.created),
        attempts=row.attempts,
        not_before=as_utc_or_none(row.not_before),
        delivered=as_utc_or_none(row.delivered),
        trouble=row.trouble,
    )
