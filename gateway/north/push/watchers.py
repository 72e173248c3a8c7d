"""Who watches uploads: websockets, each told of its own address's upload and of no other.

The protocol does not name the upload that a status is about, so a master takes the next end that it hears for its own. A
master therefore hears of nothing that another one has uploaded. One that connects while its upload is under way is told where
it stands; nobody is ever told of an end that came before it connected.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from aiohttp import WSCloseCode, web

from gateway.north.push.messages import PROTOCOL, Status, status
from update.errors import BusyError

_LOG = logging.getLogger(__name__)
_MOST = 32
_MOST_MESSAGE_BYTES = 4096
_SEND_S = 10.0

PeerOf = Callable[[web.Request], str]
"""The address that a request comes from."""


class Watchers:
    """The websockets of one listener."""

    def __init__(self, peer_of: PeerOf) -> None:
        self._peer_of = peer_of
        self._sockets: dict[web.WebSocketResponse, str] = {}
        self._standing: dict[str, Status] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One websocket, to its end. Errors: `BusyError`."""
        if len(self._sockets) >= _MOST:
            raise BusyError(f"{_MOST} websockets are open already; close some")
        peer = self._peer_of(request)
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=_MOST_MESSAGE_BYTES)
        self._sockets[socket] = peer
        try:
            await socket.prepare(request)
            if (standing := self._standing.get(peer)) is not None:
                await self._send(socket, status(standing))
            async for _ in socket:
                pass  # masters say nothing; what a page says is of no interest
        finally:
            del self._sockets[socket]
        return socket

    async def tell_status(self, peer: str, value: Status) -> None:
        """Tell the peer where its upload stands; an end is told once and forgotten."""
        if value in {Status.SUCCESS, Status.FAILURE}:
            self._standing.pop(peer, None)
        else:
            self._standing[peer] = value
        await self.tell(peer, status(value))

    async def tell(self, peer: str, message: str) -> None:
        """Tell everybody at that address, each within its time."""
        await asyncio.gather(*[self._send(socket, message) for socket, owner in tuple(self._sockets.items()) if owner == peer])

    async def close(self) -> None:
        """Say goodbye to all."""
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _send(self, socket: web.WebSocketResponse, message: str) -> None:
        if not socket.prepared or socket.closed:
            return
        try:
            async with asyncio.timeout(_SEND_S):
                await socket.send_str(message)
        except (TimeoutError, ConnectionError) as error:
            _LOG.info("a watcher of an upload is gone: %s", str(error) or "it does not read")
            with suppress(ConnectionError):
                await socket.close()
