"""RAUC's own polling (1.16, a preview there): whether there is a bundle for the node, and where.

    GET /rauc      Range: bytes=0-3, RAUC-… headers (`rauc_headers`), If-None-Match: the bundle that it saw last
    307            there is one, below the node's own resource (`artifacts`): redirects never leave this gateway
    304            there is one, and it is that one
    204            there is none now

- The node is who its certificate or token says; every node asks at the same place, so one system.conf fits all.
- RAUC acts on what it is told at once. What may not be installed now (a closed window, something that waits for somebody, what
  is only to be downloaded) is none.
- RAUC reports nothing. It installs from here, and then sends a transaction id: that is the beginning of an installation. What it
  runs in its next boot is the end of it (`gateway.fleet.judgement`). It does not poll while it installs, so whoever polls
  again in the boot in which it began has finished, and is offered nothing more before its restart.
- Cancelling needs no agreement: who polls is not installing.
"""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from gateway.database.records import Action, ActionState, ClientKind, Node
from gateway.fleet.fitness import Offering
from gateway.fleet.judgement import Told
from gateway.fleet.progress import Progress
from gateway.fleet.sightings import Sighting, Sightings
from gateway.fleet.windows import allowed
from gateway.south.ddi import told, views
from gateway.south.ddi.rauc_headers import RaucSaid, read_headers
from gateway.south.files import etag_of
from gateway.south.identity import IDENTITY
from update.errors import ForbiddenError
from update.wire import ddi

_PATH = "/rauc"
_SILENT = RaucSaid(Sighting())


class RaucPolling:
    """The one resource. `offering` chooses what a node is offered."""

    def __init__(self, progress: Progress, sightings: Sightings, offering: Offering, now: Callable[[], datetime]) -> None:
        self._progress = progress
        self._sightings = sightings
        self._offering = offering
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Where RAUC asks."""
        return [web.get(_PATH, self._poll, allow_head=False)]

    async def _poll(self, request: web.Request) -> web.Response:
        identity, said = request[IDENTITY], read_headers(request.headers) or _SILENT
        contact = await self._progress.contact(identity.node, identity.fingerprint, ClientKind.RAUC)
        if contact.node.kind is not ClientKind.RAUC:
            raise ForbiddenError(
                f"node {identity.node} is of kind {contact.node.kind}, and only RAUC polls here; "
                f"`fieldrelay gateway node {identity.node} --client rauc` changes it"
            )
        if said is not _SILENT:
            await self._sightings.seen_again(identity.node, contact.action.id if contact.action else 0, said.sighting)
            contact = await self._progress.standing(identity.node)  # what was seen may have ended something
        if contact.action is None:
            return web.Response(status=204)
        return await self._answer(request, contact.node, contact.action, said)

    async def _answer(self, request: web.Request, node: Node, action: Action, said: RaucSaid) -> web.Response:
        if action.state is ActionState.CANCELLING and not action.boot_id:
            await self._let_go(action)
        if not self._is_open(action, said):
            return web.Response(status=204)
        release = await self._offering.offered(node, action)
        if release is None:
            return web.Response(status=204)
        if said.transaction and said.sighting.boot_id:
            await self._progress.begins(node.id, action.id, said.sighting.boot_id)
        tag = etag_of(release.sha256)
        if request.headers.get("If-None-Match") == tag and action.offered is not None:
            return web.Response(status=304, headers={"ETag": tag})
        await self._progress.offer(node.id, action.id)
        place = views.Place(told.origin_of(request), node.id)
        bundle = place.link(f"softwaremodules/{action.id}/artifacts/{views.target_of(release).base_name}")
        return web.Response(status=307, headers={"Location": bundle.href})

    def _is_open(self, action: Action, said: RaucSaid) -> bool:
        may = allowed(action.terms, self._now())
        if action.state is not ActionState.OPEN or may.update is ddi.Handling.SKIP or action.installed is not None:
            return False
        return bool(said.transaction) or not action.boot_id or action.boot_id != said.sighting.boot_id

    async def _let_go(self, action: Action) -> None:
        words = "it polls, so it does not install; it is offered it no more"
        answer = Told(f"rauc-polling-cancel-{action.id}", ddi.Execution.CLOSED, ddi.Finished.SUCCESS, details=(words,))
        await self._progress.cancel_feedback(action.node, action.id, answer)
