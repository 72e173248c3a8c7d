"""Who watches uploads: websockets, each told of its own address's upload and of no other.

1. The protocol does not name the upload that a status is about: a master takes the next end that it hears for its own, and it
   waits for one even where its upload was answered with an error. So a master hears of nothing that another address has
   uploaded, and of nothing that ended before it connected.
2. The handler posts first, opens its websocket then, and sends the bundle when that stands. Who connects while its upload is
   under way is told where it stands. Who connects after its upload was refused is told of that failure, once; the websockets
   of another upload from the same address, which is under way, are not.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from aiohttp import WSCloseCode, web

from gateway.north.push.messages import PROTOCOL, Level, Status, status, text
from update.errors import BusyError

_LOG = logging.getLogger(__name__)
_MOST = 32
_MOST_MESSAGE_BYTES = 4096
_SEND_S = 10.0
_REFUSED_FOR_S = 10.0
"""How soon the handler's websocket follows its post, at the latest."""

PeerOf = Callable[[web.Request], str]
"""The address that a request comes from."""


class Watchers:
    """The websockets of one listener."""

    def __init__(self, peer_of: PeerOf, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._peer_of = peer_of
        self._clock = clock
        self._sockets: dict[web.WebSocketResponse, str] = {}
        self._standing: dict[str, Status] = {}
        self._refused: dict[str, tuple[float, str]] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One websocket, to its end. Errors: `BusyError`."""
        if len(self._sockets) >= _MOST:
            raise BusyError(f"{_MOST} websockets are open already; close some")
        peer = self._peer_of(request)
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=_MOST_MESSAGE_BYTES)
        self._sockets[socket] = peer
        try:
            await socket.prepare(request)
            await self._welcome(socket, peer)
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
            self._refused.pop(peer, None)
            self._standing[peer] = value
        await self.tell(peer, status(value))

    def forget(self, peer: str) -> None:
        """An upload of the peer's is under way no longer."""
        self._standing.pop(peer, None)

    async def tell_refusal(self, peer: str, words: str) -> None:
        """Tell the peer that an upload of its own was not taken: who connects next, and all, if none is under way there."""
        for other, (until, _) in tuple(self._refused.items()):
            if until < self._clock():
                del self._refused[other]
        self._refused[peer] = (self._clock() + _REFUSED_FOR_S, words)
        if peer not in self._standing:
            await self.tell(peer, text(Level.ERROR, words))
            await self.tell(peer, status(Status.FAILURE))

    async def tell(self, peer: str, message: str) -> None:
        """Tell everybody at that address, each within its time."""
        await asyncio.gather(*[self._send(socket, message) for socket, owner in tuple(self._sockets.items()) if owner == peer])

    async def close(self) -> None:
        """Say goodbye to all."""
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _welcome(self, socket: web.WebSocketResponse, peer: str) -> None:
        until, words = self._refused.pop(peer, (0.0, ""))
        if until >= self._clock() and until:
            await self._send(socket, text(Level.ERROR, words))
            await self._send(socket, status(Status.FAILURE))
        elif (standing := self._standing.get(peer)) is not None:
            await self._send(socket, status(standing))

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
