"""SWUpdate's webserver as it is found on devices (2022.12): an upload, its end by websocket, a restart.

1. Only the websocket tells the end. The answer to an upload is malformed in some builds (a header line `%sContent-Length`), and
   a device that finds a bundle bad may drop the connection: neither means anything.
2. The websocket stands before the upload begins, so no message is missed. A status that comes before `START` is about
   something else. SWUpdate runs one installation at a time and names none: nobody else may upload meanwhile.
3. A websocket that breaks, or is silent for `silence_s` after the upload, leaves it unknown what the device has done;
   `FAILURE` is the device's own word that nothing was switched. Its last lines before say why: that it failed is told at level
   3 (syslog's), what was in the way at 7. Sometimes none of them arrive.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from update.errors import HandlerError, SlowError, UnreachableError

_LOG = logging.getLogger(__name__)
_PROTOCOL = "swupdate-status-protocol"
_FIELD, _NAME = "swupdate-package", "swupdate.swu"
_MOST_MESSAGE_BYTES = 64 << 10
_LINE_CHARACTERS = 300
_LINES = 3
_SERVER_FAILED = 500


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for a connection, for a whole installation, for the next word after the upload."""

    connect_s: float
    install_s: float
    silence_s: float


class WebServer:
    """The webserver of one device, at `url` (`http://address:port`)."""

    def __init__(self, url: str, patience: Patience) -> None:
        self._url = url.rstrip("/")
        self._patience = patience

    async def install(self, file: Path, begin: Callable[[], Awaitable[None]]) -> None:
        """Have the device install `file`; returns when it has said SUCCESS. `begin` is awaited before the first byte is sent.

        Errors: `HandlerError` when it has said FAILURE; `UnreachableError` or `SlowError` when it cannot be reached, or, after
        `begin`, when nobody can tell what it did.
        """
        try:
            async with asyncio.timeout(self._patience.install_s), self._session() as session:
                socket = await self._watch(session)
                await begin()
                sending = asyncio.create_task(self._send(session, file))
                try:
                    await self._hear(socket, sending)
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])
                    await socket.close()
        except TimeoutError as error:
            words = f"{self._url} did not end its installation within {self._patience.install_s:g} s"
            raise SlowError(f"{words}; look at the device") from error

    async def restart(self) -> None:
        """Have it run its post-update command, which restarts it. Errors: `UnreachableError`, `HandlerError`."""
        try:
            async with (
                asyncio.timeout(self._patience.connect_s),
                self._session() as session,
                session.post(f"{self._url}/restart") as answer,
            ):
                if answer.status >= _SERVER_FAILED:
                    raise HandlerError(f"{self._url}/restart answered {answer.status}; restart the device by hand")
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(f"{self._url} cannot be reached to restart: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOG.debug("%s/restart was not answered as HTTP: %s", self._url, error)  # it goes down, or the answer is malformed

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect_s)
        return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout, trust_env=False)

    async def _watch(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(self._patience.connect_s):
                return await session.ws_connect(f"{self._url}/ws", protocols=(_PROTOCOL,), max_msg_size=_MOST_MESSAGE_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{self._url}/ws cannot be opened: {str(error) or 'no answer'}; nothing was sent") from error

    async def _send(self, session: aiohttp.ClientSession, file: Path) -> str:
        """Upload; what the answer was, for people (rule 1)."""
        with file.open("rb") as content:
            form = aiohttp.FormData()
            form.add_field(_FIELD, content, filename=_NAME, content_type="application/octet-stream")
            try:
                async with session.post(f"{self._url}/upload", data=form) as answer:
                    return f"status {answer.status}"
            except (aiohttp.ClientError, OSError) as error:
                return f"no HTTP ({type(error).__name__})"

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse, sending: "asyncio.Task[str]") -> None:
        """Listen until the end (rules 2 and 3)."""
        began = False
        lines: deque[str] = deque(maxlen=_LINES)
        while True:
            message = _read(await self._next(socket, sending))
            _LOG.debug("%s says %s", self._url, message)
            match message.get("type"), message.get("status"):
                case "status", "START":
                    began = True
                case "status", "SUCCESS" if began:
                    return
                case "status", "FAILURE" if began:
                    reason = "; ".join(lines) or "it gives no reason, its log may"
                    raise HandlerError(f"{self._url} did not install the bundle: {reason}")
                case "message", _:
                    lines.append(message.get("text", "")[:_LINE_CHARACTERS])
                case _:
                    pass

    async def _next(self, socket: aiohttp.ClientWebSocketResponse, sending: "asyncio.Task[str]") -> str:
        """The next message; while the upload runs, it may take its time."""
        receiving = asyncio.create_task(socket.receive())
        try:
            done, _ = await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
            if receiving not in done:
                await asyncio.wait([receiving], timeout=self._patience.silence_s)
            if not receiving.done():
                raise SlowError(f"{self._url} has been silent for {self._patience.silence_s:g} s after the upload; look at it")
            received = receiving.result()
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError, aiohttp.ClientError):
                await receiving
        if received.type is not aiohttp.WSMsgType.TEXT:
            said = f", its answer to the upload was: {sending.result()}" if sending.done() and not sending.cancelled() else ""
            raise UnreachableError(f"{self._url}/ws ended before the installation did{said}; look at the device")
        return str(received.data)


def _read(text: str) -> Mapping[str, str]:
    """A message whose values are all texts; what is none says nothing."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in body.items() if isinstance(value, str)} if isinstance(body, dict) else {}
