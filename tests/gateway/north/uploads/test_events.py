"""The stream of events: who hears what, and what who comes back is told."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.fleet.catalogue import RepositoryState
from gateway.north.calls.stream import StreamReader
from gateway.north.uploads.events import Events

Client = TestClient[web.Request, web.Application]


@dataclass
class Shown:
    """Repositories whose versions change by hand."""

    versions: dict[str, int]
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def watch(self, refreshed: Callable[[], None]) -> None:
        self.watchers.append(refreshed)

    def repositories(self) -> Sequence[str]:
        return tuple(self.versions)

    def states(self) -> Sequence[RepositoryState]:
        return [
            RepositoryState(name=name, targets=0, versions={"timestamp": version}, stale=(), issued=None, refreshed=None)
            for name, version in self.versions.items()
        ]

    def change(self, name: str) -> None:
        self.versions[name] += 1
        self.look()

    def look(self) -> None:
        for watcher in self.watchers:
            watcher()


@asynccontextmanager
async def serving(events: Events, own: Collection[str]) -> AsyncIterator[Client]:
    async def serve(request: web.Request) -> web.StreamResponse:
        return await events.serve(request, own)

    application = web.Application()
    application.router.add_get("/events", serve)
    async with TestClient(TestServer(application, shutdown_timeout=0.1)) as client:
        yield client


class Listener:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.reader = StreamReader()
        self._heard: list[str] = []

    async def hear(self, count: int) -> list[str]:
        """The data of the first `count` events."""
        while len(self._heard) < count:
            piece = await self._response.content.readany()
            assert piece, "the stream ended"
            self._heard += [event.data for event in self.reader.feed(piece)]
        return self._heard[:count]

    async def welcome(self) -> None:
        assert (await self._response.content.readline()) == b": welcome\n"


@asynccontextmanager
async def listening(client: Client, last: str | None = None) -> AsyncIterator[Listener]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with client.get("/events", headers=headers) as response:
        assert response.content_type == "text/event-stream"
        yield Listener(response)


async def test_a_change_is_told_to_whose_it_is_and_the_same_state_to_nobody() -> None:
    shown = Shown({"plant": 1, "vendor": 1})
    events = Events(shown)
    shown.look()
    async with serving(events, ["plant"]) as client, listening(client) as listener:
        await listener.welcome()
        shown.look()
        shown.change("vendor")
        shown.change("plant")
        shown.change("plant")
        assert await listener.hear(2) == ['{"repository": "plant"}'] * 2


async def test_who_comes_back_hears_what_it_missed_once() -> None:
    shown = Shown({"plant": 1})
    events = Events(shown)
    shown.look()
    async with serving(events, ["plant"]) as client:
        async with listening(client) as listener:
            await listener.welcome()
            shown.change("plant")
            await listener.hear(1)
            last = listener.reader.last_id
        shown.change("plant")
        async with listening(client, last) as listener:
            assert await listener.hear(1) == ['{"repository": "plant"}']
            number = listener.reader.last_id
            shown.change("plant")
            await listener.hear(2)
            assert listener.reader.last_id != number


@pytest.mark.parametrize("last", ["00000000-1", "garbage", "-", "x" * 300])
async def test_where_it_cannot_be_known_what_was_missed_everything_is_looked_at(last: str) -> None:
    shown = Shown({"plant": 1, "vendor": 1})
    events = Events(shown)
    async with serving(events, ["plant", "vendor"]) as client, listening(client, last) as listener:
        assert await listener.hear(2) == ['{"repository": "plant"}', '{"repository": "vendor"}']


async def test_a_stream_shows_that_it_lives() -> None:
    events = Events(Shown({"plant": 1}), alive_s=0.01)
    async with serving(events, ["plant"]) as client, client.get("/events") as response:
        lines = [await response.content.readline() for _ in range(4)]
        assert lines == [b": welcome\n", b"\n", b": alive\n", b"\n"]
