"""Offers pair patches to nodes: `HEAD` and `GET /repositories/<name>/patches/<path of the wanted .zck>?from=…&memory=…`.

`from` is the SHA-256 of the zchunk header of what the node runs, `memory` how many bytes it gives to applying. Answers:

| status | meaning |
|---|---|
| 200, 206 | the patch, by size, ETag (its SHA-256) and media type (its form); ranges as of any content |
| 202 | it is being made; `Retry-After` says about how long |
| 404 | there is none, and why; the node takes the chunks |
| 503 | too many others are waited for |

A node that gives less memory than patches are made for gets the form that needs next to none. Nothing is made unless both
images are complete here. Nobody has to trust a patch: the node compares every chunk that it makes of it with the signed index.
"""

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web

from gateway.single_flight import SingleFlight
from gateway.south.files import answer, etag_of
from gateway.south.open_files import Lease, OpenFiles
from gateway.south.pairs.bases import Bases
from gateway.south.pairs.shelf import Made, Pair, Shelf
from gateway.south.pairs.workshop import Order, Workshop
from gateway.south.range_response import RangeResponse
from gateway.south.relays import Find
from update.chunks.pair import PatchForm
from update.digest import Digest
from update.errors import NotFoundError, ProtocolError
from update.trust.verified import TargetInfo

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


class Catalogue(Protocol):
    """What verified metadata lists."""

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        """The target behind `targets/<folder>/<sha256>.<name>`, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Images:
    """Complete images: of targets that are listed, in the store, and by what a node says it runs."""

    listed: Catalogue
    find: Find
    bases: Bases


class PairPatches:
    """One resource. `memory_bytes` is what patches of the windowed form are made for."""

    def __init__(self, images: Images, shelf: Shelf, workshop: Workshop, files: OpenFiles, *, memory_bytes: int) -> None:
        self._images = images
        self._shelf = shelf
        self._workshop = workshop
        self._files = files
        self._memory_bytes = memory_bytes
        self._searches: SingleFlight[Pair, Made | Order] = SingleFlight()  # a search may hash whole images

    def routes(self) -> list[web.RouteDef]:
        """Below the repositories, beside their metadata and targets."""
        return [web.get("/repositories/{repository}/patches/{path:targets/.+}", self.patch)]

    async def patch(self, request: web.Request) -> web.StreamResponse:
        """The patch, or that it is being made. Errors: `NotFoundError` with the reason, `BusyError`, `ProtocolError`."""
        repository, path = request.match_info["repository"], request.match_info["path"]
        info = self._images.listed.find(repository, path)
        if info is None:
            raise NotFoundError(f"repository {repository} lists no {path}")
        pair = self._pair(request, info)
        if (wait_s := self._workshop.wait_s(pair)) is not None:
            return _later(wait_s)
        found = await self._searches.share(pair, lambda: asyncio.to_thread(self._search, pair, info))
        if isinstance(found, Made):
            return self._send(request, pair, found)
        if failure := self._workshop.failure(pair):
            raise NotFoundError(f"no patch to {path}: {failure}")
        self._workshop.order(found)
        return _later(self._workshop.wait_s(pair) or 1)

    def _pair(self, request: web.Request, info: TargetInfo) -> Pair:
        base, memory = request.query.get("from", ""), request.query.get("memory", "0")
        if not _DIGEST.fullmatch(base) or not _NUMBER.fullmatch(memory):
            raise ProtocolError("a patch is asked for with from=<SHA-256 of a zchunk header> and memory=<bytes>")
        header = info.custom.zck_header
        if header is None:
            raise NotFoundError(f"{info.path} is no .zck whose header is signed: there is no patch to it")
        if header.sha256 == base:
            raise NotFoundError(f"{info.path} is what the patch would begin from")
        if int(memory) < self._memory_bytes:
            return Pair(Digest(base), header.sha256, PatchForm.LIBRSYNC, 0)
        return Pair(Digest(base), header.sha256, PatchForm.WINDOWS, self._memory_bytes)

    def _search(self, pair: Pair, info: TargetInfo) -> Made | Order:
        """The patch, or what it can be made of. Errors: `NotFoundError`, `StoreError`."""
        if made := self._shelf.find(pair):
            return made
        new = self._images.find(info)
        if new is None:
            raise NotFoundError(f"{info.path} is not complete here: there is no patch to it yet")
        old = self._images.bases.find(pair.old)
        if old is None:
            raise NotFoundError(f"the image with the zchunk header {pair.old} is not complete here: there is no patch from it")
        return Order(pair, old, new, info)

    def _send(self, request: web.Request, pair: Pair, made: Made) -> web.StreamResponse:
        head = answer(request.method, request.headers, made.size, etag_of(made.sha256), kind=pair.form.media_type)
        return RangeResponse(head, self._lend(made))

    def _lend(self, made: Made) -> Lease:
        try:
            return self._files.borrow(made.sha256) or self._files.open(made.sha256, made.path)
        except FileNotFoundError as error:
            raise NotFoundError("the patch was removed a moment ago to make room") from error


def _later(wait_s: int) -> web.Response:
    return web.Response(status=HTTPStatus.ACCEPTED, headers={"Retry-After": str(wait_s)})
