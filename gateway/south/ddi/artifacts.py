"""The bundle of an action below the node's own resource, where stock clients look for it and their token is good.

    GET  .../softwaremodules/ACTION/artifacts              what there is
    GET  .../softwaremodules/ACTION/artifacts/FILE         the bundle, with ranges
    GET  .../softwaremodules/ACTION/artifacts/FILE.MD5SUM

The number of the software module is that of the action: a node finds what was offered to it, and nothing else. A bundle stays
there when its action has ended, for a client that comes back for the rest.
"""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web
from pydantic import RootModel

from gateway.database.records import Action, ClientKind, Release
from gateway.fleet.fitness import Offering
from gateway.fleet.progress import Progress
from gateway.south.ddi import told, views
from gateway.south.ddi.resources import Sums
from update.errors import NotFoundError
from update.trust.verified import TargetInfo
from update.wire import ddi

_ARTIFACTS = f"{views.BASE}/softwaremodules/{{action}}/artifacts"
_MD5SUM = ".MD5SUM"


class Sender(Protocol):
    """Sends content that was verified."""

    async def send(self, request: web.Request, info: TargetInfo) -> web.StreamResponse:
        """What was asked of it: all, ranges, or only the head."""
        ...


class Streams(Protocol):
    """Looks at what stands in the requests of who streams."""

    async def note(self, node: str, action: int, headers: Mapping[str, str]) -> None:
        """Note it. Errors: `ProtocolError`."""
        ...


class Artifacts:
    """What was offered, as files. `streams` is shown the requests of RAUC nodes."""

    def __init__(
        self, progress: Progress, sender: Sender, *, sums: Sums, offering: Offering, streams: Streams | None = None
    ) -> None:
        self._progress = progress
        self._sender = sender
        self._sums = sums
        self._offering = offering
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """Each resource at its path."""
        return [web.get(_ARTIFACTS, self._list), web.get(f"{_ARTIFACTS}/{{file}}", self._file)]

    async def _list(self, request: web.Request) -> web.Response:
        kind, action, release = await self._offered(request)
        place = views.Place(told.origin_of(request), action.node)
        listed = views.artifact(views.Shown(action, release, kind, place, await self._sums.of(release)))
        return told.answer(request, RootModel[list[ddi.Artifact]]([listed]))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kind, action, release = await self._offered(request)
        if self._streams is not None and kind is ClientKind.RAUC:
            await self._streams.note(action.node, action.id, request.headers)
        info, wanted = views.target_of(release), request.match_info["file"]
        if wanted == info.base_name + _MD5SUM:
            return web.Response(text=f"{(await self._sums.of(release)).md5}  {info.base_name}")
        if wanted != info.base_name:
            raise NotFoundError(f"action {request.match_info['action']} has no artifact {wanted[:80]!r}")
        return await self._sender.send(request, info)

    async def _offered(self, request: web.Request) -> tuple[ClientKind, Action, Release]:
        """The action that was offered to this node, and in which form."""
        own, number = told.own(request), told.action_in(request)
        node, action = await self._progress.offered_action(own.node, number)
        chosen = await self._offering.offered(node, action) if action.end is None else None
        return node.kind, action, chosen or action.release
