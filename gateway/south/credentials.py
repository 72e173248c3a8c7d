"""Nodes that show a target token in place of a certificate (hawkBit DDI, `Authorization: TargetToken …`).

A token opens its own node and nothing else. A gateway token, which would open every node, is refused here: between this
gateway and its nodes there is none. Who shows a certificate is who the certificate says, whatever else it sends.
"""

from aiohttp import web

from gateway.fleet.accounts import Accounts
from gateway.south.identity import Identity
from update.digest import digest_of
from update.errors import UnauthorizedError

_TARGET = "TargetToken "
_GATEWAY = "GatewayToken "


class Credentials:
    """Who a request without a certificate is from."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def identify(self, request: web.Request) -> Identity | None:
        """The node whose token it is; None without one. `UnauthorizedError` for one that opens nothing."""
        shown = request.headers.get("Authorization", "")
        if shown.startswith(_GATEWAY):
            raise UnauthorizedError("a gateway token opens no node here; give this node its own: `fieldrelay gateway account`")
        if not shown.startswith(_TARGET):
            return None
        token = shown.removeprefix(_TARGET).strip()
        node = await self._accounts.node_of(token)
        if node is None:
            raise UnauthorizedError("this target token opens no node; `fieldrelay gateway account` makes a new one")
        return Identity(node.id, digest_of(token.encode()))
