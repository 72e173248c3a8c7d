"""tus 1.0.0 on `/push/v1/files`: core, creation, expiration, termination and checksum (sha256, sha1).

`Upload-Metadata` names the `session` that a file belongs to and its `path`. Refusals are `{"code", "message"}` as everywhere,
with the status that tus has for it: 409 another offset, 410 over its time, 412 another version, 415, 423 locked, 460 checksum.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web

from gateway.edge import refusal_of
from gateway.north.uploads.headers import ALGORITHMS, checksum, metadata, number
from gateway.north.uploads.pushers import Pushers
from gateway.north.uploads.receiving import blocks, receive
from gateway.north.uploads.shelf import Push, Shelf, Upload
from gateway.sections.pushers import PusherSection
from update.errors import BusyError, ChecksumError, FieldrelayError, LockedError, ProtocolError
from update.wire.push_messages import TUS_VERSION, UPLOAD_TYPE

FILES: Final = "/push/v1/files"
_RESUMABLE: Final = "Tus-Resumable"
_EXTENSIONS: Final = "creation,expiration,termination,checksum"
_CHECKSUM_MISMATCH: Final = 460
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tus:
    """The resources. A part that brings nothing for `stalled_s` is given up."""

    def __init__(self, shelf: Shelf, pushers: Pushers, *, stalled_s: float) -> None:
        self._shelf = shelf
        self._pushers = pushers
        self._stalled_s = stalled_s
        self._coming: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """The resources."""
        one = FILES + "/{upload}"
        return [
            web.options(FILES, self._options),
            web.post(FILES, self._spoken(self._create)),
            web.head(one, self._spoken(self._offset)),
            web.patch(one, self._spoken(self._append)),
            web.delete(one, self._spoken(self._terminate)),
        ]

    async def _options(self, _request: web.Request) -> web.Response:
        headers = {
            _RESUMABLE: TUS_VERSION,
            "Tus-Version": TUS_VERSION,
            "Tus-Extension": _EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
            "Tus-Max-Size": str(self._shelf.limits.max_file_bytes),
        }
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)

    def _spoken(self, handler: _Handler) -> _Handler:
        """What every answer carries, and refusals in the protocol's own statuses."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get(_RESUMABLE) != TUS_VERSION:
                response: web.StreamResponse = web.Response(status=HTTPStatus.PRECONDITION_FAILED)
                response.headers["Tus-Version"] = TUS_VERSION
            else:
                try:
                    response = await handler(request)
                except FieldrelayError as error:
                    response = refusal_of(request, error)
                    if isinstance(error, ChecksumError):
                        response.set_status(_CHECKSUM_MISMATCH, "Checksum Mismatch")
                    elif isinstance(error, LockedError):
                        response.headers["Retry-After"] = "1"
            response.headers[_RESUMABLE] = TUS_VERSION
            return response

        return handle

    async def _create(self, request: web.Request) -> web.Response:
        pusher = self._pushers.by_token(request.headers)
        if "Upload-Defer-Length" in request.headers:
            raise ProtocolError("the length of a file is known before it is sent: Upload-Length")
        length, said = number(request.headers, "Upload-Length"), metadata(request.headers)
        if missing := {"session", "path"} - said.keys():
            raise ProtocolError(f"Upload-Metadata lacks {', '.join(sorted(missing))}")
        push = self._shelf.find(pusher, said["session"])
        upload = await self._shelf.add(pusher, push, said["path"], length)
        headers = {"Location": f"{FILES}/{upload.id}", **_standing(push, upload)}
        return web.Response(status=HTTPStatus.CREATED, headers=headers)

    async def _offset(self, request: web.Request) -> web.Response:
        push, upload = self._shelf.find_upload(self._pushers.by_token(request.headers), request.match_info["upload"])
        headers = {"Upload-Length": str(upload.length), "Cache-Control": "no-store", **_standing(push, upload)}
        headers["Content-Length"] = "0"  # without, clients take the connection for one that ends with the answer
        return web.Response(headers=headers)

    async def _append(self, request: web.Request) -> web.Response:
        pusher = self._pushers.by_token(request.headers)
        push, upload = self._shelf.find_upload(pusher, request.match_info["upload"])
        if request.content_type != UPLOAD_TYPE:
            return web.Response(status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text=f"a part is sent as {UPLOAD_TYPE}")
        offset, proof = number(request.headers, "Upload-Offset"), checksum(request.headers)
        body = blocks(request, self._stalled_s)
        await self._receive(pusher, lambda: receive(self._shelf, push, upload, body, offset=offset, checksum=proof))
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=_standing(push, upload))

    async def _receive(self, pusher: PusherSection, receiving: Callable[[], Awaitable[None]]) -> None:
        if self._coming[pusher.name] >= pusher.uploads:
            raise BusyError(f"{pusher.uploads} uploads of {pusher.name} are coming already (push.pusher.uploads): wait for one")
        self._coming[pusher.name] += 1
        try:
            await receiving()
        finally:
            self._coming[pusher.name] -= 1

    async def _terminate(self, request: web.Request) -> web.Response:
        push, upload = self._shelf.find_upload(self._pushers.by_token(request.headers), request.match_info["upload"])
        if upload.busy or not push.is_open:
            raise LockedError(f"{upload.path} is being received or judged: it cannot be removed now")
        upload.busy = True
        await asyncio.shield(self._shelf.drop(push, upload))
        return web.Response(status=HTTPStatus.NO_CONTENT)


def _standing(push: Push, upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(push.expires_s, usegmt=True)}
