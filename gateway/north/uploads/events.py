"""`/push/v1/events`: server-sent events (HTML living standard 9.2) for other gateways and build servers behind NAT.

    id: <start>-<number>
    event: look
    data: {"repository": "vendor"}

`look`: this gateway shows another state of that repository than before. Who comes back with `Last-Event-ID` is sent what it
missed; where that cannot be known any more, one `look` of every repository that it may name. A comment every `ALIVE_S` shows that
the stream lives. Whoever reads too slowly is cut off, and comes back.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from gateway.fleet.catalogue import RepositoryState
from update.errors import BusyError

ALIVE_S: Final = 15.0
_REMEMBERED: Final = 256
_MOST_LISTENERS: Final = 64
_MOST_WAITING: Final = 256


class _Shown(Protocol):
    """The repositories of this gateway, and when to look at them."""

    def watch(self, refreshed: Callable[[], None]) -> None: ...

    def repositories(self) -> Sequence[str]: ...

    def states(self) -> Sequence[RepositoryState]: ...


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    repository: str


class Events:
    """Tells listeners when a repository of `mirrors` has changed."""

    def __init__(self, mirrors: _Shown, *, alive_s: float = ALIVE_S) -> None:
        self._mirrors = mirrors
        self._alive_s = alive_s
        self._start = secrets.token_hex(4)
        self._number = 0
        self._events: deque[_Event] = deque(maxlen=_REMEMBERED)
        self._listeners: set[asyncio.Queue[_Event]] = set()
        self._versions: dict[str, Mapping[str, int]] = {}
        mirrors.watch(self._look)

    def _look(self) -> None:
        for state in self._mirrors.states():
            if state.versions and self._versions.get(state.name) != state.versions:
                self._versions[state.name] = state.versions
                self._tell(state.name)

    def _tell(self, repository: str) -> None:
        self._number += 1
        event = _Event(self._number, repository)
        self._events.append(event)
        for listener in list(self._listeners):
            try:
                listener.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(listener)

    async def serve(self, request: web.Request, repositories: Collection[str]) -> web.StreamResponse:
        """Stream what concerns these repositories until the listener goes. Errors: `BusyError`."""
        if len(self._listeners) >= _MOST_LISTENERS:
            raise BusyError(f"{_MOST_LISTENERS} listen already")
        queue: asyncio.Queue[_Event] = asyncio.Queue(_MOST_WAITING)
        self._listeners.add(queue)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        try:
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write(b": welcome\n\n")
                for event in self._missed(request.headers.get("Last-Event-ID"), repositories):
                    await response.write(self._line(event))
                await self._stream(response, queue, repositories)
        finally:
            self._listeners.discard(queue)
        return response

    async def _stream(self, response: web.StreamResponse, queue: "asyncio.Queue[_Event]", repositories: Collection[str]) -> None:
        while queue in self._listeners:
            try:
                async with asyncio.timeout(self._alive_s):
                    event = await queue.get()
            except TimeoutError:
                await response.write(b": alive\n\n")
                continue
            if event.repository in repositories:
                await response.write(self._line(event))

    def _missed(self, last: str | None, repositories: Collection[str]) -> list[_Event]:
        if last is None:
            return []
        start, _, number = last.partition("-")
        seen = int(number) if start == self._start and number.isascii() and number.isdecimal() and len(number) < 16 else -1
        oldest = self._events[0].number if self._events else 1
        if oldest - 1 <= seen <= self._number:
            return [event for event in self._events if event.number > seen and event.repository in repositories]
        return [_Event(self._number, name) for name in self._mirrors.repositories() if name in repositories]

    def _line(self, event: _Event) -> bytes:
        data = json.dumps({"repository": event.repository})
        return f"id: {self._start}-{event.number}\nevent: look\ndata: {data}\n\n".encode()
