"""One-time enrolment tokens: kept as digests, used at most once, never after their time."""

from datetime import datetime

from sqlalchemy import Row, insert, select, update

from gateway.database.engine import Transaction
from gateway.database.records import Token
from gateway.database.tables import as_utc, as_utc_or_none
from gateway.database.tables import tokens as table
from update.digest import Digest


async def add(transaction: Transaction, *, digest: Digest, node: str, reason: str, created: datetime, expires: datetime) -> Token:
    """Keep a new token's digest; `node` is empty for a token that any node may use."""
    values: dict[str, object] = {
        "digest": digest,
        "node": node,
        "reason": reason,
        "created": as_utc(created),
        "expires": as_utc(expires),
        "used_by": "",
    }
    return _record((await transaction.execute(insert(table).values(values).returning(table))).one())


async def use(transaction: Transaction, digest: Digest, *, node: str, now: datetime) -> bool:
    """Spend a token for `node`; False if there is none such that is unused, in time and meant for this node.

    One conditional update: of two requests with the same token exactly one sees it unused.
    """
    statement = (
        update(table)
        .where(table.c.digest == digest, table.c.used_at.is_(None), table.c.expires > as_utc(now), table.c.node.in_(("", node)))
        .values(used_at=as_utc(now), used_by=node)
        .returning(table.c.id)
    )
    return (await transaction.execute(statement)).first() is not None


async def everything(transaction: Transaction) -> tuple[Token, ...]:
    """All tokens, oldest first."""
    return tuple(_record(row) for row in await transaction.execute(select(table).order_by(table.c.id)))


def _record(row: Row[tuple[object, ...]]) -> Token:
    return Token(
        id=row.id,
        digest=Digest(row.digest),
        node=row.node,
        reason=row.reason,
        created=as_utc(row.created),
        expires=as_utc(row.expires),
        used_at=as_utc_or_none(row.used_at),
        used_by=row.used_by,
    )
