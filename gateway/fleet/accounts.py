"""Nodes that show a token of their own instead of a certificate: stock clients that cannot enrol.

A target token is 256 random bits in 64 letters and digits (hawkBit takes 32 to 128); the gateway keeps its SHA-256 only. It
opens its own node and nothing else. A node gets one when people add it, and a new one takes the old one's place at once.
"""

import secrets
from collections.abc import Callable
from datetime import datetime
from functools import partial

from gateway.database.engine import Database, Transaction
from gateway.database.queries import contacts, nodes
from gateway.database.records import ClientKind, Node
from update.digest import digest_of
from update.errors import UnknownNodeError
from update.identity import check_name

_TOKEN_BYTES = 32
_LONGEST = 128


class Accounts:
    """Makes, finds and takes away the tokens of nodes."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def give_token(self, node: str, kind: ClientKind) -> str:
        """A new token of a node, in clear this once; the node is added if it is new. `ConfigurationError`: no such name."""
        check_name(node, "a node's name")
        token = secrets.token_hex(_TOKEN_BYTES)
        digest = digest_of(token.encode())
        async with self._database.writing() as transaction:
            if await nodes.find(transaction, node) is None:
                await nodes.register(transaction, node, kind=kind, fingerprint=digest, now=self._now())
            await nodes.set_kind(transaction, node, kind, fixed=True)
            await nodes.set_token(transaction, node, digest)
        return token

    async def take_token(self, node: str) -> None:
        """A node's token opens nothing any more. `UnknownNodeError`."""
        async with self._database.writing() as transaction:
            await _known(transaction, node)
            await nodes.set_token(transaction, node, None)

    async def node_of(self, token: str) -> Node | None:
        """Whose token this is. It is looked up by its digest: how long that takes tells nothing about one nearly right."""
        if not token.isalnum() or not token.isascii() or len(token) > _LONGEST:
            return None
        return await self._database.look(partial(contacts.of_token, token=digest_of(token.encode())))


async def _known(transaction: Transaction, node: str) -> None:
    if await nodes.find(transaction, node) is None:
        raise UnknownNodeError(f"no node {node} has been here; see `fieldrelay gateway nodes`")
