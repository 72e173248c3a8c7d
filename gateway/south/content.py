"""What nodes read: a repository's metadata, its targets, and the parts of `.zck` files that are not complete yet.

Two addresses name the same content. Agents ask below `/repositories/NAME/`; stock clients ask for the URL that stands in
a signed description, `http://NAME/targets/…`, where the repository's stable name is the host (also as the absolute form
a proxy gets). A name is looked up in verified metadata and never opened as a path.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web

from gateway.single_flight import SingleFlight
from gateway.south.fast_lane import Lookup
from gateway.south.files import (
    MAX_RANGES,
    Answer,
    answer,
    asks_for_ranges,
    etag_of,
    not_satisfiable,
    partial,
    precondition,
    wanted_ranges,
    whole,
)
from gateway.south.open_files import Lease, OpenFiles
from gateway.south.range_response import RangeResponse
from gateway.south.relays import Find, Relays
from gateway.south.streamed import StreamedResponse, Streaming, Windows
from update.chunks.ranges import Range
from update.digest import Digest
from update.errors import (
    FieldrelayError,
    NoSpaceError,
    NotFoundError,
    NotReadyError,
    ProtocolError,
    RangeNotSatisfiableError,
    SlowError,
    UnreachableError,
)
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)


class Catalogue(Protocol):
    """What verified metadata lists."""

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        """The target behind `targets/<folder>/<sha256>.<name>`, or None."""
        ...

    def metadata(self, repository: str, name: str) -> bytes | None:
        """A metadata file as it was verified, byte for byte, or None."""
        ...

    def unread(self) -> Sequence[str]:
        """The repositories of which nothing has been verified yet, and soon may be."""
        ...


class ContentServer:
    """Handlers for metadata and targets. `find` looks into the store, and is told of every use about once a minute."""

    def __init__(
        self, catalogue: Catalogue, find: Find, relays: Relays, files: OpenFiles, *, streaming: Streaming | None = None
    ) -> None:
        self._streaming = streaming or Streaming()
        self._catalogue = catalogue
        self._find = find
        self._relays = relays
        self._files = files
        self._lookups: SingleFlight[Digest, Path | None] = SingleFlight()  # a lookup may hash a whole file

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
            raise self.lacking(NotFoundError(f"repository {repository} has no metadata {name}"), repository)
        return web.Response(body=content, content_type="application/json")

    async def target(self, request: web.Request) -> web.StreamResponse:
        """A target by repository and path."""
        return await self._send(request, request.match_info["repository"], request.match_info["path"])

    async def stock_target(self, request: web.Request) -> web.StreamResponse:
        """A target by the host of its signed URL."""
        return await self._send(request, _host_of(request), request.match_info["path"])

    async def _send(self, request: web.Request, repository: str, path: str) -> web.StreamResponse:
        info = self._catalogue.find(repository, path)
        if info is None:
            raise self.lacking(NotFoundError(f"repository {repository} lists no {path}"), repository)
        return await self.send(request, info)

    async def send(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        """What was asked of a target, from the store or through the relay."""
        lease = await self.stored(info)
        if lease is not None:
            return RangeResponse(answer(request.method, request.headers, info.length, etag_of(info.sha256)), lease)
        return await self._relay(request, info)

    def lacking(self, refusal: FieldrelayError, repository: str = "") -> FieldrelayError:
        """How to refuse what is not found: who asks before the first metadata is verified is told to ask again.

        Without `repository` any of them may turn out to have it.
        """
        unread = self._catalogue.unread()
        if not unread or (repository and repository not in unread):
            return refusal
        return NotReadyError(f"nothing of repository {', '.join(unread)} has been verified yet, ask again; until then: {refusal}")

    def lookup(self, host: str, path: str) -> Lookup | None:  # noqa: ARG002 - agents find the gateway by any name
        """For the fast lane of agents: what `target` answers."""
        parts = path.split("/", 3)
        if len(parts) < 4 or parts[1] != "repositories" or not parts[3].startswith("targets/"):
            return None
        return lambda: self.find(parts[2], parts[3])

    def find(self, repository: str, path: str) -> TargetInfo | None:
        """What verified metadata lists under this name."""
        return self._catalogue.find(repository, path)

    def opened(self, info: TargetInfo) -> int | None:
        """A descriptor of complete content that is open already, to be used before anything is awaited."""
        return self._files.peek(info.sha256)

    async def stored(self, info: TargetInfo) -> Lease | None:
        """Complete content, from the store; no thread is asked while it is in use."""
        if lease := self._files.borrow(info.sha256):
            return lease
        if self._relays.is_open(info.sha256):
            return None
        path = await self._lookups.share(info.sha256, lambda: asyncio.to_thread(self._find, info))
        if path is None:
            return None
        try:
            return self._files.borrow(info.sha256) or self._files.open(info.sha256, path)
        except FileNotFoundError:  # removed a moment ago
            return None

    async def lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease:
        """A file that holds `ranges`, for who reads in this process. Errors: those of `Relays.lend`."""
        return await self.stored(info) or await self._lend(info, ranges)

    async def _relay(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        """Answer from the sparse file, once what is asked for has come; what is one and long, while it comes."""
        etag = etag_of(info.sha256)
        if refused := precondition(request.headers, etag):
            return RangeResponse(refused)
        try:
            ranges = wanted_ranges(request.method, request.headers, info.length, etag)
        except RangeNotSatisfiableError:
            return RangeResponse(not_satisfiable(info.length))
        if request.method == "HEAD":
            return RangeResponse(whole(info.length, etag, method="HEAD"))
        if ranges is None and asks_for_ranges(request.headers, etag):
            raise ProtocolError(
                f"{info.path} is not complete here, and the ranges asked for cannot be read or are more than {MAX_RANGES}: "
                "ask for fewer, or for the whole file without a Range field"
            )
        if ranges is None:
            return await self._stream(info, whole(info.length, etag, method="GET"))
        if len(ranges) == 1 and ranges[0].length > self._streaming.from_bytes:
            return await self._stream(info, partial(ranges, info.length, etag))
        ranges, lease = await self._lend_some(info, ranges)
        return RangeResponse(partial(ranges, info.length, etag), lease)

    async def _stream(self, info: TargetInfo, said: Answer) -> web.StreamResponse:
        windows = Windows(said.parts[0].span, lambda window: self._lend(info, (window,)), self._streaming)
        await windows.begin()
        return StreamedResponse(said, windows)

    async def _lend_some(self, info: TargetInfo, ranges: tuple[Range, ...]) -> tuple[tuple[Range, ...], Lease]:
        """All `ranges`, or the first of them if the rest cannot be had now.

        A server may answer fewer ranges than asked (RFC 9110 section 14.2), and swupdate then asks for the rest, while it
        gives up its update at any status but 206 (measured with 2022.12).
        """
        try:
            return ranges, await self._lend(info, ranges)
        except (UnreachableError, SlowError, NoSpaceError) as error:
            few = self._relays.bearable if isinstance(error, NoSpaceError) else self._relays.leading
            count = few(info, ranges)
            if not count:
                raise
            _log.info("relay: %s: answering %d of %d ranges: %s", info.path, count, len(ranges), error)
        return ranges[:count], await self._lend(info, ranges[:count])

    async def _lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease:
        lease = await self._relays.lend(info, ranges) or await self.stored(info)
        if lease is None:
            raise NotFoundError(f"{info.path} of {info.repository} was removed while it was asked for; ask again")
        return lease


def _host_of(request: web.Request) -> str:
    """The host of the URL asked for: of the absolute form that a proxy gets, else of the Host field."""
    try:
        return request.url.host or ""
    except ValueError as error:
        raise ProtocolError(f"not a host: {request.host[:80]!r}") from error
