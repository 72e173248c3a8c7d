"""Listens for browsers, for so many at a time: a page is not worth what nodes need."""

import asyncio
import errno
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from update.errors import ConfigurationError

_LOG = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
_BACKLOG: Final = 64
_HANDSHAKE_S: Final = 10.0
_KEEP_ALIVE_S: Final = 15.0
_SHUTDOWN_S: Final = 1.0
_MAX_LINE_BYTES: Final = 8190
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Not now."""
        transport.close()


@asynccontextmanager
async def listening(
    application: web.Application,
    addresses: Sequence[str],
    port: int,
    tls: ssl.SSLContext | None,
    *,
    most: int = MAX_CONNECTIONS,
) -> AsyncGenerator[int]:
    """As long as the block lasts; the port. Errors: `ConfigurationError` for an address that is taken, or for none at all."""
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=_KEEP_ALIVE_S,
        max_field_size=_MAX_LINE_BYTES,
        max_line_size=_MAX_LINE_BYTES,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    servers: list[asyncio.Server] = []
    try:
        for address in addresses:
            found = await _listen(runner, address, port, tls, most)
            servers += [found] if found else []
            port = port or (servers[0].sockets[0].getsockname()[1] if servers else 0)
        if not servers:
            raise ConfigurationError(f"[web] none of the addresses is one of this machine: {', '.join(addresses)}")
        yield port
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, address: str, port: int, tls: ssl.SSLContext | None, most: int) -> asyncio.Server | None:
    """One address; None for one that this machine has not."""
    made = runner.server
    assert made is not None

    def connection() -> asyncio.Protocol:
        return made() if len(made.connections) < most else _Full()

    handshake_s = None if tls is None else _HANDSHAKE_S
    try:
        return await asyncio.get_running_loop().create_server(
            connection, address, port, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake_s
        )
    except OSError as error:
        if error.errno in _NO_SUCH_ADDRESS:
            _LOG.warning("[web] this machine has no address %s: not listening there", address)
            return None
        raise ConfigurationError(f"[web] cannot listen on {address} port {port}: {error.strerror or error}") from error
