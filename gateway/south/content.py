"""What nodes read: a repository's metadata, its targets, and the parts of `.zck` files that are not complete yet.

Two addresses name the same content. Agents ask below `/repositories/NAME/`; stock clients ask for the URL that stands in
a signed description, `http://NAME/targets/…`, where the repository's stable name is the host (also as the absolute form
a proxy gets). A name is looked up in verified metadata and never opened as a path.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from gateway.south.files import Answer, answer, etag_of, not_satisfiable, partial, precondition, wanted_ranges, whole
from gateway.south.open_files import OpenFiles
from gateway.south.range_response import RangeResponse
from gateway.south.relays import Relays
from update.chunks.ranges import Range
from update.digest import Digest
from update.errors import NotFoundError, RangeNotSatisfiableError
from update.trust.verified import TargetInfo


class Catalogue(Protocol):
    """What verified metadata lists."""

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        """The target behind `targets/<folder>/<sha256>.<name>`, or None."""
        ...

    def metadata(self, repository: str, name: str) -> bytes | None:
        """A metadata file as it was verified, byte for byte, or None."""
        ...


Find = Callable[[TargetInfo], Path | None]
"""Where a complete, verified target is stored; reads the file at its first use after a start."""


class ContentServer:
    """Handlers for metadata and targets."""

    def __init__(self, catalogue: Catalogue, find: Find, relays: Relays, files: OpenFiles) -> None:
        self._catalogue = catalogue
        self._find = find
        self._relays = relays
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        """For agents: everything below `/repositories/`."""
        return [
            web.get("/repositories/{repository}/metadata/{name}", self.metadata),
            web.get("/repositories/{repository}/{path:targets/.+}", self.target),
        ]

    def stock_routes(self) -> list[web.RouteDef]:
        """For stock clients on the plain listener: targets only, the host names the repository."""
        return [web.get("/{path:targets/.+}", self.stock_target)]

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """One metadata file; 404 tells a client that there is no newer root."""
        repository, name = request.match_info["repository"], request.match_info["name"]
        content = self._catalogue.metadata(repository, name)
        if content is None:
            raise NotFoundError(f"repository {repository} has no metadata {name}")
        return web.Response(body=content, content_type="application/json")

    async def target(self, request: web.Request) -> web.StreamResponse:
        """A target by repository and path."""
        return await self._send(request, request.match_info["repository"], request.match_info["path"])

    async def stock_target(self, request: web.Request) -> web.StreamResponse:
        """A target by the host of its signed URL."""
        return await self._send(request, request.url.host or "", request.match_info["path"])

    async def _send(self, request: web.Request, repository: str, path: str) -> web.StreamResponse:
        info = self._catalogue.find(repository, path)
        if info is None:
            raise NotFoundError(f"repository {repository} lists no {path}")
        stored = await asyncio.to_thread(self._find, info)
        if stored is not None:
            return self._response(info.sha256, stored, answer(request.method, request.headers, info.length, etag_of(info.sha256)))
        return await self._relay(request, info)

    async def _relay(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        """Answer from the sparse file, once what is asked for has come; nothing is sent before."""
        etag = etag_of(info.sha256)
        if refused := precondition(request.headers, etag):
            return _bodiless(refused)
        try:
            ranges = wanted_ranges(request.method, request.headers, info.length, etag)
        except RangeNotSatisfiableError:
            return _bodiless(not_satisfiable(info.length))
        if request.method == "HEAD":
            return _bodiless(whole(info.length, etag, method="HEAD"))
        path = await self._relays.ensure(info, ranges or (Range(0, info.length),))
        reply = partial(ranges, info.length, etag) if ranges else whole(info.length, etag, method="GET")
        try:
            return self._response(info.sha256, path, reply)
        except FileNotFoundError:  # completed and published a moment ago
            stored = await asyncio.to_thread(self._find, info)
            if stored is None:
                raise
            return self._response(info.sha256, stored, reply)

    def _response(self, digest: Digest, path: Path, reply: Answer) -> RangeResponse:
        lease = self._files.lease(digest, path)
        return RangeResponse(reply, lease.descriptor, lease.release)


def _bodiless(reply: Answer) -> RangeResponse:
    return RangeResponse(reply, -1, lambda: None)
