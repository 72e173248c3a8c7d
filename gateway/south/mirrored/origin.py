"""One exchange with a route's upstream: ask for a path, or whether it changed, and write what comes to a staged file.

The upstream's address is configuration, never the client's. Nothing of the client's request goes upstream but the path.
A registry answers a manifest in the form that `Accept` names (OCI distribution specification, pull), so all forms are
named always: the answer is the same for every client.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp

from gateway.sections.routes import RouteKind, RouteSection
from gateway.south.mirrored.growing import STREAM_FROM_BYTES, Begun, Growing
from gateway.south.mirrored.objects import Held, Objects
from gateway.south.mirrored.rules import quoted
from update.durable import DurableFile
from update.errors import ProtocolError, TooLargeError
from update.wire.http import PLAIN, Manner, exchange, pieces, refusal
from update.wire.rate import RateGuard

_WRITE_BYTES: Final = 256 << 10
_CONNECTIONS: Final = 8
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,300}", re.ASCII)
_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete body on disk, synced, still without a name; `held` describes it."""

    held: Held
    file: DurableFile


class Origin:
    """The upstream of one route; at most a few requests at a time. Errors: leaves of `WireError`, `StoreError`."""

    def __init__(self, session: aiohttp.ClientSession, route: RouteSection, manner: Manner = PLAIN) -> None:
        self._session = session
        self._base = route.upstream.rstrip("/")
        self._manifests = {"Accept": _MANIFESTS} if route.kind is RouteKind.OCI else {}
        self._max_bytes = route.max_object_bytes
        self._manner = manner
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    async def fetch(
        self, path: str, held: Held | None, objects: Objects, now_s: float, *, begun: Begun | None = None, has_proof: bool = False
    ) -> Fetched | None:
        """The content of `path`, or None where upstream says that `held` still is. The caller closes and keeps the file.

        `begun` is told of content that is worth reading while it comes, and has to end it; `has_proof`: not to its last byte.
        """
        headers = {**(self._manifests if "/manifests/" in path else {}), **_conditions(held)}
        async with (
            self._turns,
            exchange(self._session, "GET", f"{self._base}/{quoted(path)}", self._manner, headers=headers) as response,
        ):
            if response.status == HTTPStatus.NOT_MODIFIED and held is not None and not held.absent:
                return None
            if response.status != HTTPStatus.OK:
                raise refusal(response)
            announced = self._announced(response)
            file = await objects.stage(path, announced or 0)
            growing: Growing | None = None
            try:
                if begun is not None and announced is not None and announced >= STREAM_FROM_BYTES:
                    growing = Growing(file.fileno(), announced, _media_type(response), has_proof=has_proof)
                    begun(growing)
                digest, size = await self._receive(response, file, growing)
            except BaseException:  # also when cancelled: nothing half-received stays
                file.close()
                objects.discard(file.path)
                raise
        return Fetched(_described(path, response, digest, size, now_s), file)

    def _announced(self, response: aiohttp.ClientResponse) -> int | None:
        """The announced length; a body whose end could not be told from a broken connection is refused."""
        announced = response.content_length
        if announced is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
            raise ProtocolError(f"{response.url} answers without a length: its end could not be told from a break")
        if announced is not None and announced > self._max_bytes:
            raise TooLargeError(f"{response.url} announces {announced} bytes, max_object_bytes is {self._max_bytes}")
        return announced

    async def _receive(self, response: aiohttp.ClientResponse, file: DurableFile, growing: Growing | None) -> tuple[str, int]:
        """Write the body and sync it; its SHA-256 and length. aiohttp reports one shorter than announced as a failure."""
        state, size, waiting = hashlib.sha256(), 0, bytearray()
        async for piece in pieces(response, RateGuard(self._manner.patience, str(response.url)), self._manner.line):
            if size + len(waiting) + len(piece) > self._max_bytes:
                raise TooLargeError(f"{response.url} sends more than max_object_bytes {self._max_bytes}")
            waiting += piece
            if len(waiting) >= _WRITE_BYTES:
                size += await asyncio.to_thread(_take, state.update, file, size, bytes(waiting))
                waiting.clear()
                if growing is not None:
                    growing.grew(size)
        size += await asyncio.to_thread(_take, state.update, file, size, bytes(waiting))
        if growing is not None:
            growing.grew(size)
        await asyncio.to_thread(file.sync)
        return state.hexdigest(), size


def _conditions(held: Held | None) -> Mapping[str, str]:
    """What makes upstream answer 304 if nothing changed (RFC 9110 section 13); the ETag is the better of both."""
    if held is None or held.absent:
        return {}
    if held.etag:
        return {"If-None-Match": held.etag}
    return {"If-Modified-Since": held.modified} if held.modified else {}


def _described(path: str, response: aiohttp.ClientResponse, digest: str, size: int, now_s: float) -> Held:
    return Held(
        path,
        digest,
        size,
        now_s,
        _media_type(response),
        _line(response.headers.get("ETag", "")),
        _line(response.headers.get("Last-Modified", "")),
    )


def _media_type(response: aiohttp.ClientResponse) -> str:
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else ""


def _line(text: str) -> str:
    return text if _VALIDATOR.fullmatch(text) else ""


def _take(note: Callable[[bytes], None], file: DurableFile, offset: int, data: bytes) -> int:
    note(data)
    file.write_at(offset, data)
    return len(data)
