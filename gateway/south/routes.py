"""The south application: who may ask what, and the listeners that carry it.

Every resource belongs to a node that proves itself by its certificate or its own token, except those of the parts given as
`open_to_all` (first contact). Refusals are `{"code", "message"}`. Header limits are raised: a stock delta client names hundreds
of ranges in one line. Request bodies are taken as they are, never unpacked.
"""

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.edge import MAX_BODY_BYTES, MAX_HEADER_BYTES, refuse_by_name
from gateway.south.credentials import Credentials
from gateway.south.fast_lane import Lanes, Shelf
from gateway.south.identity import IDENTITY, Identify, Identity, by_certificate, is_node
from gateway.south.pace import paced
from gateway.south.proxy import no_tunnel
from update.errors import ConfigurationError, UnauthorizedError
from update.wire.limits import Shares

_LOG = logging.getLogger(__name__)
_SHUTDOWN_S = 5.0
_KEEP_ALIVE_S = 75.0
_BACKLOG = 1024  # a plant's nodes come back together
_LANES = web.AppKey("lanes", Lanes)
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Part(Protocol):
    """Something that answers on the south side."""

    def routes(self) -> list[web.RouteDef]:
        """Its resources."""
        ...


def south_application(
    parts: Sequence[Part],
    *,
    open_to_all: Sequence[Part],
    identify: Identify = by_certificate,
    credentials: Credentials | None = None,
    shares: Shares | None = None,
    shelf: Shelf | None = None,
) -> web.Application:
    """One application of all parts; `identify` is another one in tests only, `shares` None: as fast as the nodes read.

    `credentials` knows who has no certificate; None: nobody without one is a node.
    What stands on `shelf` is answered in the fast lane.
    """
    open_routes = [route for part in open_to_all for route in part.routes()]
    open_paths = frozenset(route.path for route in open_routes)

    @web.middleware
    async def know_the_node(request: web.Request, handler: _Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is None or resource.canonical not in open_paths:
            identity = identify(request)
            if identity is None and credentials is not None:
                identity = await credentials.identify(request)
            request[IDENTITY] = _admitted(identity)
        return await handler(request)

    middlewares = [refuse_by_name, know_the_node, *_pacing(shares)]
    application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    application.add_routes(open_routes)
    application.add_routes([route for part in parts for route in part.routes()])
    _open_lanes(application, shelf, shares, is_node)
    return application


def content_application(
    routes: Sequence[web.RouteDef], *, shares: Shares | None = None, shelf: Shelf | None = None
) -> web.Application:
    """The plain HTTP application for stock clients: content that carries its own proof, and nothing else."""
    middlewares = [refuse_by_name, no_tunnel, *_pacing(shares)]
    application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    application.add_routes(routes)
    _open_lanes(application, shelf, shares, lambda _: True)
    return application


def _open_lanes(
    application: web.Application, shelf: Shelf | None, shares: Shares | None, admits: Callable[[asyncio.Transport], bool]
) -> None:
    """With limits there is no fast lane: who asks is then told apart, and waits for its share."""
    if shelf is not None and shares is None:
        lanes = application[_LANES] = Lanes(shelf, admits=admits, idle_s=_KEEP_ALIVE_S)
        application.on_shutdown.append(lanes.close)


def _pacing(shares: Shares | None) -> list[Middleware]:
    return [] if shares is None else [paced(shares)]


def make_runner(application: web.Application) -> web.AppRunner:
    """A runner with this side's limits."""
    return web.AppRunner(
        application,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEP_ALIVE_S,
        max_field_size=MAX_HEADER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        shutdown_timeout=_SHUTDOWN_S,
    )


async def listen(runner: web.AppRunner, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None, *, key: str) -> int:
    """Listen on every address that this machine has; the port (the one found, for port 0).

    `ConfigurationError` names `key` if an address is taken, or if there is none at all. An address family that the machine
    lacks is left out: the default is both.
    """
    opened = False
    for address in addresses:
        try:
            found = await _open(runner, address, port, tls)
        except OSError as error:
            if error.errno not in _NO_SUCH_ADDRESS:
                raise ConfigurationError(f"[{key}] cannot listen on {address} port {port}: {error.strerror or error}") from error
            _LOG.warning("[%s] this machine has no address %s: not listening there", key, address)
        else:
            port, opened = port or found, True
    if not opened:
        raise ConfigurationError(f"[{key}] none of the addresses is one of this machine: {', '.join(addresses)}")
    return port


async def _open(runner: web.AppRunner, address: str, port: int, tls: ssl.SSLContext | None) -> int:
    """Listen on one address; the port."""
    lanes = runner.app.get(_LANES)
    if lanes is not None and runner.server is not None:
        return await lanes.listen(runner.server, address, port, tls, backlog=_BACKLOG)
    site = web.TCPSite(runner, address, port, ssl_context=tls, backlog=_BACKLOG)
    await site.start()
    return site.port


def _admitted(identity: Identity | None) -> Identity:
    if identity is None:
        raise UnauthorizedError(
            "a node shows its certificate or its own token; one without makes its first contact at /.well-known/est/"
        )
    return identity
