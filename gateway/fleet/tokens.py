"""One-time tokens for the first contact of a node, before it has a certificate.

A token is 256 random bits, told once to the operator who made it; the gateway keeps its SHA-256 only, which is as good as a
slow hash for a secret that nobody can guess. It is spent by its first use, whatever becomes of that.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.database.engine import Database
from gateway.database.queries import tokens
from update.digest import digest_of
from update.identity import check_name

_TOKEN_BYTES = 32
MAX_VALID_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token in clear: shown once, kept nowhere. `node` empty: for any name."""

    token: str
    node: str
    expires: datetime


class Tokens:
    """Makes and spends tokens."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def create(self, *, node: str, reason: str, valid_s: int) -> NewToken:
        """Make a token that lives `valid_s` seconds; `ConfigurationError` for a name that no node can have."""
        if node:
            check_name(node, "a node's name")
        token, created = secrets.token_urlsafe(_TOKEN_BYTES), self._now()
        expires = created + timedelta(seconds=valid_s)
        async with self._database.writing() as transaction:
            digest = digest_of(token.encode())
            await tokens.add(transaction, digest=digest, node=node, reason=reason, created=created, expires=expires)
        return NewToken(token, node, expires)

    async def redeem(self, node: str, token: str) -> bool:
        """Use the token up for `node`; False if it is unknown, used, expired or for another node.

        It is looked up by its digest: how long that takes tells nothing about a token that is only nearly right.
        """
        digest = digest_of(token.encode(errors="replace"))
        async with self._database.writing() as transaction:
            return await tokens.use(transaction, digest, node=node, now=self._now())
