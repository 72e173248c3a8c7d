"""Reports: what nodes said about their actions, each kept once however often it was sent."""

from collections.abc import Mapping

from sqlalchemy import Row, func, insert, select

from gateway.database.engine import Transaction
from gateway.database.records import ReportRecord
from gateway.database.tables import actions, as_utc
from gateway.database.tables import reports as table


async def add(transaction: Transaction, report: ReportRecord) -> bool:
    """Keep a report; False, and nothing changed, if the node sent this one before.

    Two connections adding the same report at once cannot happen with SQLite's one writer; on PostgreSQL the second
    fails on the unique key, and its node sends again.
    """
    same = select(table.c.id).where(table.c.node == report.node, table.c.report == report.report)
    if (await transaction.execute(same)).first() is not None:
        return False
    values: dict[str, object] = {
        "action": report.action,
        "node": report.node,
        "report": report.report,
        "sequence": report.sequence,
        "received": as_utc(report.received),
        "execution": report.execution,
        "finished": report.finished,
        "details": list(report.details),
        "body": None if report.body is None else dict(report.body),
    }
    await transaction.execute(insert(table).values(values))
    return True


async def count(transaction: Transaction, action: int) -> int:
    """How many reports about an action are kept."""
    statement = select(func.count()).select_from(table).where(table.c.action == action)
    return int((await transaction.execute(statement)).scalar_one())


async def newest(transaction: Transaction, action: int, most: int) -> tuple[ReportRecord, ...]:
    """The reports about an action, newest first, at most so many."""
    statement = select(table).where(table.c.action == action).order_by(table.c.id.desc()).limit(most)
    return tuple(_record(row) for row in await transaction.execute(statement))


async def latest(transaction: Transaction) -> Mapping[int, ReportRecord]:
    """The newest report with figures of our own agent about the newest action of every node, by action."""
    current = select(func.max(actions.c.id)).group_by(actions.c.node)
    newest = select(func.max(table.c.id)).where(table.c.body.is_not(None), table.c.action.in_(current)).group_by(table.c.action)
    rows = await transaction.execute(select(table).where(table.c.id.in_(newest)))
    return {row.action: _record(row) for row in rows}


def _record(row: Row[tuple[object, ...]]) -> ReportRecord:
    return ReportRecord(
        action=row.action,
        node=row.node,
        report=row.report,
        sequence=row.sequence,
        received=as_utc(row.received),
        execution=row.execution,
        finished=row.finished,
        details=tuple(row.details),
        body=row.body,
    )
