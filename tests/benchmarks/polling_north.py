"""The hawkBit server of `ONLY=polling`: it counts what the gateway asks for its nodes, and wants one bundle of some of them."""

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

_BASE = "/DEFAULT/controller/v1/{target}"
_WINDOW_S = 1.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class North:
    """Counts requests; `ordered` are the targets that shall run the bundle, `sleep` is the interval that it asks for."""

    def __init__(self, port: int, sleep: str, ordered: Sequence[str], bundle: Path) -> None:
        self.port = port
        self._sleep = sleep
        self._actions = {target: number for number, target in enumerate(ordered, 1)}
        self._bundle = bundle
        self._content = bundle.read_bytes()
        self._times = list[float]()
        self.targets = set[str]()
        self.entries = Counter[str]()

    @property
    def requests(self) -> int:
        """How many there were since the restart."""
        return len(self._times)

    def restart(self) -> None:
        """Count from now on."""
        self._times.clear()

    def peak(self) -> int:
        """The most requests that came within any one second."""
        first = most = 0
        for last, moment in enumerate(self._times):
            while self._times[first] <= moment - _WINDOW_S:
                first += 1
            most = max(most, last - first + 1)
        return most

    def application(self) -> web.Application:
        """Its resources."""

        @web.middleware
        async def count(request: web.Request, handler: _Handler) -> web.StreamResponse:
            self._times.append(time.perf_counter())
            self.targets.add(request.match_info.get("target", ""))
            return await handler(request)

        application = web.Application(middlewares=[count])
        application.add_routes(
            [
                web.get(_BASE, self._root),
                web.put(f"{_BASE}/configData", self._attributes),
                web.get(f"{_BASE}/deploymentBase/{{action}}", self._deployment),
                web.post(f"{_BASE}/deploymentBase/{{action}}/feedback", self._feedback),
                web.get(f"{_BASE}/softwaremodules/1/artifacts/{{name}}", self._artifact),
            ]
        )
        return application

    async def _root(self, request: web.Request) -> web.Response:
        target, links = request.match_info["target"], {}
        if target in self._actions:
            links["deploymentBase"] = self._link(request, f"deploymentBase/{self._actions[target]}?c=1")
        return web.json_response({"config": {"polling": {"sleep": self._sleep}}, "_links": links})

    async def _attributes(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async def _deployment(self, request: web.Request) -> web.Response:
        name, href = self._bundle.name, self._link(request, f"softwaremodules/1/artifacts/{self._bundle.name}")
        hashes = {"sha256": hashlib.sha256(self._content).hexdigest()}
        file = {"filename": name, "size": len(self._content), "hashes": hashes, "_links": {"download-http": href}}
        chunk = {"part": "os", "version": "1.2", "name": "os", "artifacts": [file]}
        body = {"download": "forced", "update": "forced", "chunks": [chunk]}
        return web.json_response({"id": request.match_info["action"], "deployment": body})

    async def _feedback(self, request: web.Request) -> web.Response:
        await request.read()
        self.entries[request.match_info["action"]] += 1
        return web.Response()

    async def _artifact(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._content)

    def _link(self, request: web.Request, path: str) -> dict[str, str]:
        return {"href": f"http://127.0.0.1:{self.port}{_BASE.format(target=request.match_info['target'])}/{path}"}


@asynccontextmanager
async def serve_north(north: North) -> AsyncIterator[None]:
    """Answer on its port (0: on any, which it then knows) until the block ends."""
    runner = web.AppRunner(north.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", north.port)
        await site.start()
        north.port = site.port
        yield
    finally:
        await runner.cleanup()
