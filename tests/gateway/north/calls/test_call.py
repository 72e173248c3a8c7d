"""A stream that is kept open: what it is opened with, what an event has looked at, and what becomes of it when it breaks."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.north.calls.call import Call, Line, meant
from gateway.north.calls.stream import StreamEvent
from update.errors import NotFoundError, ProtocolError, SlowError
from update.wire.http import Manner


@dataclass
class Looked:
    wanted: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, repositories: Collection[str], *, assigners: bool) -> None:
        self.wanted.append((tuple(repositories), assigners))
        self.news.set()


@dataclass
class Relay:
    """A server of one stream; `says` is sent to each who comes, `holds`: the stream stays open then."""

    says: bytes = b""
    status: int = 200
    holds: bool = False
    kind: str = "text/event-stream"
    came: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.came.append(dict(request.headers))
        response = web.StreamResponse(status=self.status, headers={"Content-Type": self.kind})
        await response.prepare(request)
        await response.write(self.says)
        if self.holds:
            await asyncio.sleep(3600)
        return response


@asynccontextmanager
async def calling(relay: Relay, looked: Looked, idle_s: float = 60.0) -> AsyncIterator[Call]:
    application = web.Application()
    application.router.add_get("/events", relay.serve)
    server = TestServer(application)
    async with server, aiohttp.ClientSession() as session:
        manner = Manner(headers={"Authorization": "Bearer secret"})
        line = Line("head", str(server.make_url("/events")), lambda: manner, idle_s)
        yield Call(line, session, looked, ("plant", "vendor"), chance=lambda: 0.0, first_s=0.001)


async def test_an_event_has_all_or_the_named_repository_looked_at() -> None:
    looked = Looked()
    says = b'event: look\ndata: {"repository": "vendor"}\n\nevent: look\ndata: {}\n\nevent: other\ndata: {}\n\n'
    async with calling(Relay(says), looked) as call:
        await call.listen()
    assert looked.wanted == [(("vendor",), False), (("plant", "vendor"), True)]


async def test_it_is_opened_with_the_token_and_again_with_what_was_heard_last() -> None:
    looked, relay = Looked(), Relay(b"id: s-7\nevent: look\ndata: {}\n\n")
    async with calling(relay, looked) as call:
        await call.listen()
        await call.listen()
    assert [each.get("Last-Event-ID") for each in relay.came] == [None, "s-7"]
    assert all(each["Authorization"] == "Bearer secret" for each in relay.came)


async def test_a_silent_stream_is_dead() -> None:
    async with calling(Relay(b": welcome\n\n", holds=True), Looked(), idle_s=0.05) as call:
        with pytest.raises(SlowError):
            await call.listen()


@pytest.mark.parametrize(
    ("relay", "error"), [(Relay(status=404), NotFoundError), (Relay(b"<html>", kind="text/html"), ProtocolError)]
)
async def test_what_is_no_stream_is_refused_by_name(relay: Relay, error: type[Exception]) -> None:
    async with calling(relay, Looked()) as call:
        with pytest.raises(error):
            await call.listen()


async def test_a_stream_that_ends_is_opened_again_and_looked_once_for_what_was_missed() -> None:
    looked, relay = Looked(), Relay(b": welcome\n\n")
    async with calling(relay, looked) as call:
        running = asyncio.create_task(call.run())
        async with asyncio.timeout(60):
            await looked.news.wait()
        running.cancel()
        await asyncio.wait([running])
    assert looked.wanted[0] == (("plant", "vendor"), True)
    assert len(relay.came) >= 2


async def test_it_waits_ever_longer_and_as_long_as_it_was_told() -> None:
    async with calling(Relay(b"retry: 5000\n\n"), Looked()) as call:
        await call.listen()
        assert call.pause_s() >= 2.5


@pytest.mark.parametrize(
    ("event", "repository"),
    [
        (StreamEvent("look", ""), ""),
        (StreamEvent("look", '{"repository": "vendor"}'), "vendor"),
        (StreamEvent("look", '{"repository": 7}'), ""),
        (StreamEvent("message", '{"type": "look", "repository": "vendor"}'), "vendor"),
        (StreamEvent("message", '{"type": "ping"}'), None),
        (StreamEvent("message", "[" * 100_000), None),
        (StreamEvent("state", "{}"), None),
    ],
)
def test_only_what_says_look_is_a_hint(event: StreamEvent, repository: str | None) -> None:
    assert meant(event) == repository
