"""`/push/v1/`: sessions and what becomes of them, what is here already, "look now", and the stream of events.

| resource | |
|---|---|
| `POST /push/v1/sessions` | begin to push: `{"repository": …}`, or empty |
| `GET`, `DELETE /push/v1/sessions/{session}` | which files, how much of each; forget it |
| `POST /push/v1/sessions/{session}/finish` | judge it; asked again, the same verdict |
| `HEAD /push/v1/content/{sha256}` | whether this content is here, by its digest: 200 or 404 |
| `POST /push/v1/look` | ask the upstreams now, by token or signature |
| `GET /push/v1/events` | server-sent events |
"""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Final

from aiohttp import web

from gateway.edge import answer, read_message
from gateway.north.looking import Looking
from gateway.north.mirrors import Mirrors
from gateway.north.uploads.adoption import Adoption
from gateway.north.uploads.events import Events
from gateway.north.uploads.pushers import Pushers
from gateway.north.uploads.shelf import Push, Shelf
from gateway.north.uploads.tus import FILES
from gateway.sections.pushers import PusherSection
from update.errors import ForbiddenError, LockedError, ProtocolError, StateError
from update.store.store import Store
from update.wire.push_messages import BEGIN, LOOK, SESSION, VERDICT, Arriving, Begin, Look, Session, Verdict

_LOG = logging.getLogger(__name__)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_LOOK_BYTES: Final = 64 << 10
_SIGNATURE: Final = "webhook-signature"


class PushResources:
    """The resources; each proves its pusher by itself."""

    def __init__(
        self,
        pushers: Pushers,
        shelf: Shelf,
        adoption: Adoption,
        looking: Looking,
        events: Events,
        *,
        mirrors: Mirrors,
        store: Store,
    ) -> None:
        self._pushers = pushers
        self._shelf = shelf
        self._adoption = adoption
        self._looking = looking
        self._events = events
        self._mirrors = mirrors
        self._store = store
        self._judging: set[asyncio.Task[Verdict]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The resources."""
        one = "/push/v1/sessions/{session}"
        return [
            web.post("/push/v1/sessions", self._begin),
            web.get(one, self._show),
            web.delete(one, self._remove),
            web.post(one + "/finish", self._finish),
            web.head("/push/v1/content/{sha256}", self._content),
            web.post("/push/v1/look", self._look),
            web.get("/push/v1/events", self._listen),
        ]

    async def close(self) -> None:
        """Let go of what is being judged: it is judged when it is asked for again."""
        for task in list(self._judging):
            task.cancel()
        await asyncio.gather(*self._judging, return_exceptions=True)

    async def _begin(self, request: web.Request) -> web.Response:
        pusher = self._pushers.by_token(request.headers)
        wanted = await read_message(request, BEGIN) if request.can_read_body else Begin()
        if wanted.repository:
            _check_own(pusher, wanted.repository)
        response = answer(SESSION, _told(await self._shelf.begin(pusher, wanted.repository, wanted.label)))
        response.set_status(HTTPStatus.CREATED)
        return response

    async def _show(self, request: web.Request) -> web.Response:
        return answer(SESSION, _told(self._session(request)[1]))

    async def _remove(self, request: web.Request) -> web.Response:
        _, push = self._session(request)
        if push.finishing is not None or any(upload.busy for upload in push.files.values()):
            raise LockedError(f"session {push.id} is at work: a file of it is coming, or it is being judged")
        await asyncio.shield(self._shelf.remove(push))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _finish(self, request: web.Request) -> web.Response:
        pusher, push = self._session(request)
        if push.verdict is None:
            if push.finishing is None:
                _check_complete(push)
                push.finishing = asyncio.create_task(self._judge(push, pusher))
                self._judging.add(push.finishing)
                push.finishing.add_done_callback(self._judging.discard)
            await asyncio.shield(push.finishing)
        if push.verdict is None:
            raise StateError(f"session {push.id} was not judged: finish it again")
        return answer(VERDICT, push.verdict)

    async def _judge(self, push: Push, pusher: PusherSection) -> Verdict:
        """Whoever asked may have gone meanwhile: the verdict is kept until the session's time is over."""
        try:
            verdict = await self._adoption.adopt(push, pusher)
            await self._shelf.end(push, verdict)
        finally:
            push.finishing = None
        return verdict

    async def _content(self, request: web.Request) -> web.Response:
        """Only content of repositories that the pusher may push to: what others have is not its to know."""
        pusher, sha256 = self._pushers.by_token(request.headers), request.match_info["sha256"]
        if not _DIGEST.fullmatch(sha256):
            raise ProtocolError("content is asked for by its SHA-256 in 64 hexadecimal digits")
        for name in pusher.repositories:
            for info in self._mirrors.targets(name):
                if info.sha256 == sha256 and await asyncio.to_thread(self._store.find, info) is not None:
                    return web.Response(headers={"Content-Length": str(info.length)})
        return web.Response(
            status=HTTPStatus.NOT_FOUND, headers={"Content-Length": "0"}
        )  # an answer, no refusal: it is sent then

    async def _look(self, request: web.Request) -> web.Response:
        body = await request.content.read(_MOST_LOOK_BYTES + 1)
        if len(body) > _MOST_LOOK_BYTES:
            raise ProtocolError(f"a word to look has at most {_MOST_LOOK_BYTES} bytes")
        signed = _SIGNATURE in request.headers
        pusher = self._pushers.by_signature(request.headers, body) if signed else self._pushers.by_token(request.headers)
        wanted = _wanted(body)
        if wanted.repository:
            _check_own(pusher, wanted.repository)
        repositories = [wanted.repository] if wanted.repository else pusher.repositories
        self._looking.want(repositories, assigners=not wanted.repository)
        return web.Response(status=HTTPStatus.ACCEPTED)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        return await self._events.serve(request, self._pushers.by_token(request.headers).repositories)

    def _session(self, request: web.Request) -> tuple[PusherSection, Push]:
        pusher = self._pushers.by_token(request.headers)
        return pusher, self._shelf.find(pusher, request.match_info["session"])


def _wanted(body: bytes) -> Look:
    """What a word names; other servers' webhooks say other things, and mean that it is time to look at all."""
    try:
        return LOOK.validate_json(body)
    except ValueError:
        return Look()


def _check_own(pusher: PusherSection, repository: str) -> None:
    if repository not in pusher.repositories:
        raise ForbiddenError(f"{pusher.name} has no repository {repository}; its own are {', '.join(pusher.repositories)}")


def _check_complete(push: Push) -> None:
    for upload in push.files.values():
        if upload.busy or upload.offset < upload.length:
            raise StateError(f"{upload.path} is here up to byte {upload.offset} of {upload.length}: send the rest, or delete it")
    if not push.files:
        raise StateError(f"session {push.id} has no files")


def _told(push: Push) -> Session:
    files = tuple(Arriving(each.path, each.length, each.offset, f"{FILES}/{each.id}") for each in push.files.values())
    return Session(push.id, push.repository, int(push.expires_s), files, push.verdict)
