"""hawkBit's DDI towards the nodes: the controller resources.

    GET  /DEFAULT/controller/v1/NODE                              what waits: one action, or attributes to send
    PUT  /DEFAULT/controller/v1/NODE/configData                   what the node says of itself
    GET  /DEFAULT/controller/v1/NODE/deploymentBase/ACTION        what to install
    POST /DEFAULT/controller/v1/NODE/deploymentBase/ACTION/feedback
    GET  /DEFAULT/controller/v1/NODE/cancelAction/ACTION          what to let go of
    POST /DEFAULT/controller/v1/NODE/cancelAction/ACTION/feedback
    GET  /DEFAULT/controller/v1/NODE/installedBase/ACTION         what was installed
    PUT  /DEFAULT/controller/v1/NODE/installedBase                what the node installed by itself

- A node sees its own resources only: the name in the path is the one that it proved.
- Every success is answered 200: clients were seen to take 201 and 204 for failures.
- A feedback that is well-formed and about the node's own action is answered 200, also when it came before or too late: a node
  that is told otherwise would send it for ever, or stop its update.
- What is offered is a hint: the chunk's `fieldrelay.*` metadata names a target that the agent resolves in metadata that it
  verified itself.
- Roots and deployments carry an ETag; who has the same already is answered 304.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from aiohttp import web
from pydantic import BaseModel

from gateway.database.records import Action, ActionState, Digests, Node, Release
from gateway.fleet.fitness import Offering
from gateway.fleet.intervals import Intervals
from gateway.fleet.progress import Contact, Progress
from gateway.fleet.windows import allowed, polling_s
from gateway.south.ddi import told, views
from update.digest import digest_of
from update.errors import NotFoundError
from update.wire import ddi
from update.wire.ddi_confirmation import Installed

_MOST_HISTORY = 1000


class Sums(Protocol):
    """Who knows the digests that stock clients compare."""

    async def of(self, release: Release) -> Digests:
        """Those of one bundle. Errors: `StoreError`."""
        ...


class AsOrdered:
    """Every node is offered what was ordered."""

    async def offered(self, node: Node, action: Action) -> Release | None:  # noqa: ARG002 - the same for all
        """The action's own release."""
        return action.release


class Ddi:
    """The controller resources. `intervals` is how often nodes shall ask; `offering` chooses what they are offered."""

    def __init__(
        self,
        progress: Progress,
        *,
        intervals: Intervals,
        sums: Sums,
        now: Callable[[], datetime],
        offering: Offering | None = None,
    ) -> None:
        self._progress = progress
        self._offering = offering or AsOrdered()
        self._intervals = intervals
        self._sums = sums
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Each resource at its path."""
        return [
            web.get(views.BASE, self._root),
            web.put(f"{views.BASE}/configData", self._attributes),
            web.get(f"{views.BASE}/deploymentBase/{{action}}", self._deployment),
            web.post(f"{views.BASE}/deploymentBase/{{action}}/feedback", self._feedback),
            web.get(f"{views.BASE}/cancelAction/{{action}}", self._cancellation),
            web.post(f"{views.BASE}/cancelAction/{{action}}/feedback", self._cancel_feedback),
            web.get(f"{views.BASE}/installedBase/{{action}}", self._installed),
            web.put(f"{views.BASE}/installedBase", self._installed_elsewhere),
        ]

    async def _root(self, request: web.Request) -> web.Response:
        node, now = told.own(request), self._now()
        contact = await self._progress.contact(node.node, node.fingerprint, told.kind_of(request))
        place = views.Place(told.origin_of(request), node.node)
        release = await self._offered(contact)
        links = views.links(place, contact.node, contact.action, release, now)
        if contact.installed is not None:
            links["installed_base"] = place.link(f"installedBase/{contact.installed}")
        sleep_s = polling_s(None if contact.action is None else contact.action.terms, now, self._intervals.of(node.node))
        config = ddi.Config(polling=ddi.Polling(sleep=ddi.format_polling(sleep_s)))
        return _tagged(request, ddi.Root(config=config, links=ddi.RootLinks(**links)))

    async def _attributes(self, request: web.Request) -> web.Response:
        node = told.own(request)
        said = await told.read(request, ddi.ConfigData, ddi.MAX_CONFIG_DATA_BYTES)
        await self._progress.describe(node.node, node.fingerprint, said.mode, said.data)
        return web.Response()

    async def _deployment(self, request: web.Request) -> web.Response:
        own, number = told.own(request), told.action_in(request)
        contact = await self._progress.standing(own.node)
        action, release = contact.action, await self._offered(contact)
        if action is not None and action.id == number and action.state is ActionState.OPEN:
            may = allowed(action.terms, self._now())
            if release is None or not views.is_shown(contact.node.kind, action, may):
                raise NotFoundError(f"action {number} cannot be offered now; the link is back when it can")
        offered = await self._progress.offer(own.node, number)  # refuses what is not to be installed now
        return await self._document(request, contact.node, offered, release or offered.release)

    async def _installed(self, request: web.Request) -> web.Response:
        own, number = told.own(request), told.action_in(request)
        node, action = await self._progress.installed_action(own.node, number)
        return await self._document(request, node, action, action.release)

    async def _installed_elsewhere(self, request: web.Request) -> web.Response:
        node = told.own(request)
        said = await told.read(request, Installed, ddi.MAX_FEEDBACK_BYTES)
        await self._progress.installed_elsewhere(node.node, said.name, said.version)
        return web.Response()

    async def _document(self, request: web.Request, node: Node, action: Action, release: Release) -> web.Response:
        place = views.Place(told.origin_of(request), node.id)
        sums = await self._sums.of(release) if views.needs_sums(node.kind) else None
        body = views.deployment(views.Shown(action, release, node.kind, place, sums), self._now())
        history = await self._history(action, request.query.get("actionHistory", "0"))
        return _tagged(request, ddi.DeploymentBase(id=str(action.id), deployment=body, action_history=history))

    async def _history(self, action: Action, wanted: str) -> ddi.ActionHistory | None:
        """What was told of the action, newest first; -1 stands for all."""
        most = int(wanted) if wanted.removeprefix("-").isdecimal() and len(wanted) <= 10 else 0
        if most == 0:
            return None
        lines = await self._progress.history(action.id, _MOST_HISTORY if most < 0 else min(most, _MOST_HISTORY))
        return ddi.ActionHistory(status="FINISHED" if action.state is ActionState.CLOSED else "RUNNING", messages=lines)

    async def _offered(self, contact: Contact) -> Release | None:
        """In which form a node gets the release. Who was told of it keeps it: a client reports by what it was offered."""
        action = contact.action
        if action is None:
            return None
        chosen = await self._offering.offered(contact.node, action)
        return chosen or (None if action.offered is None else action.release)

    async def _cancellation(self, request: web.Request) -> web.Response:
        node, action = told.own(request), told.action_in(request)
        stopped = str((await self._progress.cancellation(node.node, action)).id)
        return told.answer(request, ddi.CancelAction(id=stopped, cancel_action=ddi.CancelStop(stop_id=stopped)))

    async def _feedback(self, request: web.Request) -> web.Response:
        node, action = told.own(request), told.action_in(request)
        await self._progress.feedback(node.node, action, await told.feedback(request))
        return web.Response()

    async def _cancel_feedback(self, request: web.Request) -> web.Response:
        node, action = told.own(request), told.action_in(request)
        await self._progress.cancel_feedback(node.node, action, await told.feedback(request))
        return web.Response()


def _tagged(request: web.Request, message: BaseModel) -> web.Response:
    """An answer with its ETag, or 304 for who has it."""
    tag = f'"{digest_of(ddi.encode(message))[:32]}"'
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers={"ETag": tag})
    response = told.answer(request, message)
    response.headers["ETag"] = tag
    return response
