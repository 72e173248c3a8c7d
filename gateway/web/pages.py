"""What browsers and programs are answered: the page, the parts of it that change, the same as JSON, and a stream of changes.

    /             the whole page
    /live         the part that changes, as HTML
    /api/status   `Snapshot` as JSON
    /api/events   server-sent events (HTML, section 9.2): `state` with sticks and counts whenever anything has changed
    /static/…     the style, the script, the icon

With JavaScript the page asks for `/live` on every event; without, it asks for itself every few seconds.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter

from gateway.edge import answer
from gateway.web.language import language_of
from gateway.web.looking import LOOK_S, Look
from gateway.web.snapshot import Snapshot, Stick
from gateway.web.view import View, view_of
from update.errors import BusyError, NotFoundError

MAX_STREAMS: Final = 32
MAX_STREAMS_OF_ONE: Final = 8
_BEAT_S: Final = 10.0
_WRITE_S: Final = 10.0
_STATIC: Final = MappingProxyType({
    "page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml",
})  # fmt: skip
_SNAPSHOT: Final = TypeAdapter(Snapshot)
_STICKS: Final = TypeAdapter(tuple[Stick, ...])


class Pages:
    """All of it, drawn from what `look` sees."""

    def __init__(self, look: Look, now: Callable[[], datetime]) -> None:
        self._look = look
        self._now = now
        loader = PackageLoader("gateway.web")
        self._templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        folder = files("gateway.web") / "static"
        self._static: Mapping[str, bytes] = {name: (folder / name).read_bytes() for name in _STATIC}
        self._streams: Counter[str] = Counter()
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Nothing but GET, and HEAD of it."""
        return [
            web.get("/", self._page),
            web.get("/live", self._live),
            web.get("/static/{name}", self._file),
            web.get("/api/status", self._status),
            web.get("/api/events", self._events),
        ]

    async def close(self, _application: web.Application) -> None:
        """End the streams, for `on_shutdown`."""
        self._closing.set()

    async def _page(self, request: web.Request) -> web.Response:
        return await self._drawn(request, "page.html")

    async def _live(self, request: web.Request) -> web.Response:
        return await self._drawn(request, "live.html")

    async def _drawn(self, request: web.Request, template: str) -> web.Response:
        language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))
        view: View = view_of(await self._look(), language, self._now())
        text = self._templates.get_template(template).render(view=view)
        headers = {hdrs.CONTENT_LANGUAGE: language, hdrs.VARY: hdrs.ACCEPT_LANGUAGE}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._static:
            raise NotFoundError(f"there is no file {name[:80]!r}")
        return web.Response(body=self._static[name], content_type=_STATIC[name], charset="utf-8")

    async def _status(self, _request: web.Request) -> web.Response:
        return answer(_SNAPSHOT, await self._look())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"})
        with self._place(request.remote or ""):
            await stream.prepare(request)
            if request.method == hdrs.METH_HEAD:
                return stream
            try:
                await self._tell(stream)
            except (ConnectionError, TimeoutError):  # who watched is gone, or reads nothing
                stream.force_close()
        return stream

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        """For one stream. Errors: `BusyError`."""
        if self._streams.total() >= MAX_STREAMS or self._streams[address] >= MAX_STREAMS_OF_ONE:
            raise BusyError("too many are watching; close another window, or load the page again from time to time")
        self._streams[address] += 1
        try:
            yield
        finally:
            self._streams[address] -= 1
            self._streams += Counter()  # forgets who watches no more

    async def _tell(self, stream: web.StreamResponse) -> None:
        clock, told, number = asyncio.get_running_loop().time, None, 0
        beat = clock()
        while not self._closing.is_set():
            snapshot = await self._look()
            if snapshot is not told:
                told, number, beat = snapshot, number + 1, clock()
                await _write(stream, f"id: {number}\nretry: 2000\nevent: state\ndata: {_news(snapshot)}\n\n")
            elif clock() - beat >= _BEAT_S:
                beat = clock()
                await _write(stream, ": still here\n\n")
            try:
                await asyncio.wait_for(self._closing.wait(), LOOK_S)
            except TimeoutError:
                continue


async def _write(stream: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(_WRITE_S):
        await stream.write(text.encode())


def _news(snapshot: Snapshot) -> str:
    """On one line: JSON writes no line breaks."""
    sticks = _STICKS.dump_python(snapshot.sticks, mode="json")
    counts = Counter(node.condition.value for node in snapshot.nodes)
    return json.dumps({"schema": snapshot.schema, "sticks": sticks, "nodes": counts})
