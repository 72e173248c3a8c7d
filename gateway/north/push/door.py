"""The listener: who may push, and what is answered where.

- Only the addresses that are allowed, for everything. `swuforward` shows no certificate; a user and password in its URL come
  with the upload (RFC 7617), and never with the websocket.
- `POST /upload` is an upload. A websocket may be asked for at any path, as at SWUpdate's; everything else is refused.
- Requests are limited in size before they are read (`push.receiving`).
"""

import asyncio
import errno
import hmac
import logging
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

from aiohttp import web

from gateway.edge import refuse_by_name
from gateway.north.push.push import Push
from gateway.north.push.watchers import Watchers
from gateway.north.token_file import read_token
from update.errors import ConfigurationError, FieldrelayError, ForbiddenError, NotFoundError, UnauthorizedError

_LOG = logging.getLogger(__name__)
_SHUTDOWN_S = 5.0
_PEER = web.RequestKey("push peer", str)
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may push: from these networks, and with what the file `credentials` holds (`user:password`), if it is named."""

    allowed: tuple[str, ...]
    credentials: Path | None = None

    def check_address(self, request: web.Request) -> None:
        """Whether that address may ask for anything. Errors: `ForbiddenError`."""
        peer = ip_address(peer_of(request))
        if not any(peer in ip_network(network) for network in self.allowed):
            raise ForbiddenError(f"{peer} may not push here; it is not among the addresses that are allowed")

    def check_credentials(self, request: web.Request) -> None:
        """Whether it may upload. Errors: `UnauthorizedError`, `ConfigurationError`."""
        if self.credentials is not None:
            shown = _shown(request.headers.get("Authorization", ""))
            if not hmac.compare_digest(shown.encode(), read_token(self.credentials).encode()):
                raise UnauthorizedError("an upload shows the user and password of this listener: http://user:password@gateway")


def peer_of(request: web.Request) -> str:
    """The address that a request comes from, one of IPv4 as such; kept, since a cut connection does not tell any more."""
    known: str | None = request.get(_PEER)
    if known is not None:
        return known
    transport = request.transport
    name = transport.get_extra_info("peername") if transport is not None else None
    if not isinstance(name, tuple):
        raise ForbiddenError("nobody can be told to have sent this request: its connection is gone")
    peer = ip_address(str(name[0]).partition("%")[0])
    request[_PEER] = found = str(peer.ipv4_mapped or peer) if isinstance(peer, IPv6Address) else str(peer)
    return found


def push_application(push: Push, watchers: Watchers, admission: Admission) -> web.Application:
    """The application of one listener."""

    @web.middleware
    async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
        admission.check_address(request)
        return await handler(request)

    async def upload(request: web.Request) -> web.Response:
        try:
            admission.check_credentials(request)
            return await push.upload(request)
        except FieldrelayError as error:
            await push.refused(request, error)
            raise

    async def watch(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise NotFoundError(f"there is nothing at {request.path[:80]}: upload to /upload, or open a websocket")
        return await watchers.serve(request)

    application = web.Application(middlewares=[refuse_by_name, admit])
    application.router.add_post("/upload", upload)
    application.router.add_get("/{path:.*}", watch, allow_head=False)
    return application


class Door:
    """`Listener` of one application; `port` is the one found, once it is open (0 in tests)."""

    def __init__(
        self, application: web.Application, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None, *, key: str
    ) -> None:
        self._runner = web.AppRunner(application, access_log=None, auto_decompress=False, shutdown_timeout=_SHUTDOWN_S)
        self._addresses = tuple(addresses)
        self._tls = tls
        self._key = key
        self.port = port
        self.listening = asyncio.Event()

    async def open(self) -> None:
        """Listen on every address. `ConfigurationError` names the section if that cannot be."""
        await self._runner.setup()
        opened = 0
        for address in self._addresses:
            site = web.TCPSite(self._runner, address, self.port, ssl_context=self._tls)
            try:
                await site.start()
            except OSError as error:
                if error.errno in _NO_SUCH_ADDRESS and len(self._addresses) > 1:
                    _LOG.warning("[%s] this machine has no address %s: not listening there", self._key, address)
                    continue
                await self.close()
                message = f"[{self._key}] cannot listen on {address} port {self.port}: {error.strerror or error}"
                raise ConfigurationError(message) from error
            self.port, opened = self.port or site.port, opened + 1
        if not opened:
            await self.close()
            raise ConfigurationError(f"[{self._key}] none of the addresses is one of this machine: {self._addresses}")
        self.listening.set()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


def _shown(header: str) -> str:
    """User and password of a Basic authorization; empty for anything else."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return ""
