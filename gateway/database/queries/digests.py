"""Digests of contents: computed once, since stock clients ask for others than the SHA-256 that names a content here."""

from sqlalchemy import insert, select

from gateway.database.engine import Transaction
from gateway.database.records import Digests
from gateway.database.tables import digests as table
from update.digest import Digest


async def find(transaction: Transaction, sha256: Digest) -> Digests | None:
    """The other digests of a content, if they were computed before."""
    row = (await transaction.execute(select(table).where(table.c.sha256 == sha256))).one_or_none()
    return None if row is None else Digests(Digest(row.sha256), row.sha1, row.md5)


async def add(transaction: Transaction, digests: Digests) -> None:
    """Keep what was computed; a content never changes, so what is there stays."""
    if await find(transaction, digests.sha256) is None:
        values = {"sha256": digests.sha256, "sha1": digests.sha1, "md5": digests.md5}
        await transaction.execute(insert(table).values(values))
