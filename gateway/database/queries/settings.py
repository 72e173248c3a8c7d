"""Settings that the gateway itself decides and remembers; what the operator decides stands in the configuration file."""

from sqlalchemy import delete, insert, select

from gateway.database.engine import Transaction
from gateway.database.tables import settings as table


async def find(transaction: Transaction, key: str) -> object | None:
    """The value kept under `key` (what JSON can hold), or None."""
    return (await transaction.execute(select(table.c.value).where(table.c.key == key))).scalar_one_or_none()


async def put(transaction: Transaction, key: str, value: object) -> None:
    """Keep `value` (what JSON can hold) under `key`; in two statements, because an upsert has another word in every dialect."""
    await transaction.execute(delete(table).where(table.c.key == key))
    await transaction.execute(insert(table).values(key=key, value=value))
