"""A device with SWUpdate's webserver, written after what Debian's 2022.12 does, that misbehaves on demand.

async with web_device("1.0") as device:
    device.url, device.probe_url
    device.running, device.uploads      # what it runs; every bundle that it was given
    device.complaint = "no space"       # what it answers the next uploads with, instead of installing them
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, web

_VERSION = re.compile(rb'"version": "([^"]+)"')


@dataclass(slots=True)
class WebDevice:
    """The device. `starts` is what its boot variables say; a restart runs it, or with `falls_back` what ran before."""

    running: str
    starts: str
    port: int = 0
    boots: int = 1
    uploads: list[bytes] = field(default_factory=list)
    restarts: int = 0
    complaint: str = ""
    stale: tuple[str, ...] = ()  # said to whoever connects: an end of something else
    hangs_up: bool = False  # in the middle of its installation
    silent: bool = False
    falls_back: bool = False
    ignores_restart: bool = False
    away: int = 0  # so many probes are not answered
    away_after_restart: int = 1
    trial_starts: int = 0  # so often it starts what nobody confirms; 0: what was installed stays
    before: str = ""  # what it returns to while it is on trial
    tried: int = 0
    sockets: set[web.WebSocketResponse] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def probe_url(self) -> str:
        return f"{self.url}/version"

    def power_on(self) -> None:
        """It starts."""
        self.boots += 1
        if self.falls_back:
            self.starts = self.running
        elif self.before:
            self.tried += 1
            if self.tried > self.trial_starts:
                self.starts, self.before = self.before, ""
        self.running = self.starts

    def confirm(self) -> None:
        """What runs stays."""
        self.before = ""

    async def say(self, **message: str) -> None:
        for socket in tuple(self.sockets):
            await socket.send_str(json.dumps(message))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("swupdate-status-protocol",))
        await socket.prepare(request)
        self.sockets.add(socket)
        for text in self.stale:
            await socket.send_str(text)
        async for _ in socket:
            pass
        self.sockets.discard(socket)
        return socket

    async def upload(self, request: web.Request) -> web.Response:
        assert request.content_length is not None  # the real one takes no chunked body
        part = await (await request.multipart()).next()
        assert isinstance(part, BodyPartReader)
        assert (part.name, part.filename) == ("swupdate-package", "swupdate.swu")
        content = bytes(await part.read())
        self.uploads.append(content)
        if self.silent:
            return web.Response(status=200)
        await self._install(content)
        return web.Response(status=200, text="x", headers={"%sContent-Length": "0000000043"})

    async def _install(self, content: bytes) -> None:
        for status in ("DOWNLOAD", "START", "RUN"):
            await self.say(type="status", status=status)
        await self.say(type="step", number="1", step="1", name="rootfs.img", percent="40")
        if self.hangs_up:
            for socket in tuple(self.sockets):
                await socket.close()
            return
        found = _VERSION.search(content)
        if self.complaint or found is None:
            await self.say(type="message", level="7", text=f"[install_raw_image] : {self.complaint}")
            await self.say(type="message", level="3", text="Installation failed !")
            await self.say(type="status", status="FAILURE")
            return
        if self.trial_starts and found[1].decode() != self.running:
            self.before, self.tried = self.running, 0
        self.starts = found[1].decode()
        await self.say(type="status", status="SUCCESS")

    async def confirmed(self, _request: web.Request) -> web.Response:
        self.confirm()
        return web.Response()

    async def restart(self, _request: web.Request) -> web.Response:
        self.restarts += 1
        if not self.ignores_restart:
            self.power_on()
            self.away = self.away_after_restart
        return web.Response(status=201)

    async def version(self, _request: web.Request) -> web.Response:
        if self.away:
            self.away -= 1
            return web.Response(status=503)
        return web.Response(text=f"version={self.running}\nboot={self.boots}\n")


@asynccontextmanager
async def web_device(version: str) -> AsyncIterator[WebDevice]:
    """A device that runs `version`, on a port of its own."""
    device = WebDevice(version, version)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/upload", device.upload)
    application.router.add_post("/restart", device.restart)
    application.router.add_get("/version", device.version)
    application.router.add_post("/confirmed", device.confirmed)
    application.router.add_get("/ws", device.watch)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    device.port = site.port
    try:
        yield device
    finally:
        for socket in tuple(device.sockets):
            await socket.close()
        async with asyncio.timeout(10):
            await runner.cleanup()
