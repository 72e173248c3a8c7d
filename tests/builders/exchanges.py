"""A server in front of another one that notes what is said between a client and it. Streams do not fit through it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer; bodies are empty where there were none."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    asked: bytes
    status: int
    answered: bytes


@dataclass(slots=True)
class Listener:
    """`url` stands for the other server's; `heard` is what was said, in order."""

    url: str
    heard: list[Exchange] = field(default_factory=list)


@asynccontextmanager
async def listener(target: str) -> AsyncIterator[Listener]:
    """A listener in front of `target`, a base address; paths are noted below it."""
    made = Listener("")
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.Response:
            path, asked = request.match_info["path"], await request.read()
            headers = {name: value for name, value in request.headers.items() if name != "Host"}
            url = f"{target}/{path}"
            async with session.request(request.method, url, params=request.query, data=asked, headers=headers) as response:
                answered, status, kind = await response.read(), response.status, response.content_type
            made.heard.append(Exchange(request.method, f"/{path}", dict(request.query), headers, asked, status, answered))
            return web.Response(status=status, body=answered, content_type=kind)

        application = web.Application()
        application.router.add_route("*", "/api/wfx/v1/{path:.*}", forward)
        async with TestServer(application, host="127.0.0.1") as server:
            made.url = str(server.make_url("/api/wfx/v1"))
            yield made
