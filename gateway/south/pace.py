"""How fast each node may be sent content: its share of what the gateway sends to all.

A node is its certificate's name; on the plain listener, where nobody proves anything, it is an address. Without limits there
is no middleware, and a response finds no share.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.south.identity import IDENTITY
from update.wire.limits import Share, Shares

PACE = web.RequestKey("pace", Share)
"""What a response asks before it sends; absent without limits."""


def paced(shares: Shares) -> Middleware:
    """Give each request the share of who asks; stands behind what finds out who that is."""

    @web.middleware
    async def pace(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        request[PACE] = shares.of(_who(request))
        return await handler(request)

    return pace


def _who(request: web.Request) -> str:
    identity = request.get(IDENTITY)
    return f"address {request.remote}" if identity is None else f"node {identity.node}"
