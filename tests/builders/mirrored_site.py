"""A mirrored route in process: an upstream that tests rule, the gateway's application before it, and a clock that is set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.sections.routes import RouteKind, RouteSection
from gateway.south.mirrored.mirror import Mirror
from gateway.south.mirrored.objects import Objects
from gateway.south.mirrored.origin import Origin
from gateway.south.mirrored.server import MirrorServer
from gateway.south.open_files import OpenFiles
from gateway.south.routes import content_application, make_runner
from update.digest import digest_of
from update.durable import Disk
from update.errors import NotFoundError

START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class FileUpstream:
    """Serves `files` (path -> content); `asked` are (path, If-None-Match). `url` is set while it runs."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        condition = request.headers.get("If-None-Match", "")
        self.asked.append((path, condition))
        if self.status:
            return web.Response(status=self.status)
        content = self.files.get(path)
        if content is None:
            return web.Response(status=404)
        etag = f'"{digest_of(content)[:16]}"'
        if condition == etag:
            return web.Response(status=304)
        return web.Response(body=content, headers={"ETag": etag, **self.headers})


@dataclass
class Site:
    """A running gateway listener at `url` over one upstream."""

    mirror: Mirror
    objects: Objects
    session: aiohttp.ClientSession
    url: str
    clock: list[datetime]

    def pass_time(self, seconds: float) -> None:
        self.clock[0] += timedelta(seconds=seconds)

    async def get(self, path: str, **more: Any) -> tuple[int, bytes]:  # Any: aiohttp's own options
        async with self.session.get(f"{self.url}{path}", **more) as response:
            return response.status, await response.read()


def route(kind: RouteKind, upstream: str, **more: Any) -> RouteSection:  # Any: the section's own keys
    prefix = "/v2/" if kind is RouteKind.OCI else "/mirror/"
    return RouteSection(**{"name": "x", "prefix": prefix, "upstream": upstream, "kind": kind, **more})


async def nobody(request: web.Request) -> web.StreamResponse:
    """What answers where no route does."""
    raise NotFoundError(f"no route answers {request.raw_path}")


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[str]:
    """The application on a free port of the loopback."""
    runner = make_runner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def upstream(files: FileUpstream) -> AsyncIterator[FileUpstream]:
    """`files` on a free port."""
    application = web.Application()
    application.router.add_get("/{path:.*}", files.answer)
    async with serving(application) as files.url:
        yield files


@asynccontextmanager
async def site(folder: Path, section: RouteSection, *, reserve_bytes: int = 0) -> AsyncIterator[Site]:
    """The gateway's plain listener with one route, on what `folder` holds."""
    clock = [START]
    objects = Objects(Disk(), folder, quota_bytes=section.quota_bytes, reserve_bytes=reserve_bytes)
    objects.load()
    files = OpenFiles()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        mirror = Mirror(section, objects, Origin(session, section), lambda: clock[0])
        try:
            async with serving(content_application(MirrorServer([mirror], files, nobody).routes())) as url:
                yield Site(mirror, objects, session, url, clock)
        finally:
            await mirror.close()
            files.close()
