"""hawkBit's confirmations towards the nodes: somebody there agrees to an action before it is downloaded.

GET  .../confirmationBase                              what waits, and whether all is agreed to beforehand
GET  .../confirmationBase/ACTION                       what is to be agreed to
POST .../confirmationBase/ACTION/feedback              `confirmed` or `denied`
POST .../confirmationBase/activateAutoConfirm          from now on, all
POST .../confirmationBase/deactivateAutoConfirm
"""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from gateway.fleet.confirmations import Confirmations
from gateway.south.ddi import told, views
from update.wire import ddi
from update.wire.ddi_confirmation import (
    Answer,
    AutoConfirm,
    AutoConfirmState,
    ConfirmationAction,
    ConfirmationBase,
    ConfirmationFeedback,
    ConfirmationLinks,
)

_BASE = f"{views.BASE}/confirmationBase"


class Agreement:
    """The confirmation resources."""

    def __init__(self, confirmations: Confirmations, now: Callable[[], datetime]) -> None:
        self._confirmations = confirmations
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Each resource at its path; the switches before what could be an action."""
        return [
            web.get(_BASE, self._base),
            web.post(f"{_BASE}/activateAutoConfirm", self._activate),
            web.post(f"{_BASE}/deactivateAutoConfirm", self._deactivate),
            web.get(f"{_BASE}/{{action}}", self._waiting),
            web.post(f"{_BASE}/{{action}}/feedback", self._answer),
        ]

    async def _base(self, request: web.Request) -> web.Response:
        own = told.own(request)
        node, action = await self._confirmations.standing(own.node)
        place, before = views.Place(told.origin_of(request), own.node), node.auto_confirm
        switch = "activateAutoConfirm" if before is None else "deactivateAutoConfirm"
        link = place.link(f"confirmationBase/{switch}")
        links = ConfirmationLinks(
            confirmation_base=None if action is None else place.link(f"confirmationBase/{action.id}"),
            activate=link if before is None else None,
            deactivate=None if before is None else link,
        )
        state = AutoConfirmState(active=False)
        if before is not None:
            since_ms = int(before.activated.timestamp() * 1000)
            state = AutoConfirmState(active=True, initiator=before.initiator, remark=before.remark, activated_at=since_ms)
        return told.answer(request, ConfirmationBase(auto_confirm=state, links=links))

    async def _waiting(self, request: web.Request) -> web.Response:
        own = told.own(request)
        action = await self._confirmations.waiting(own.node, told.action_in(request))
        node, _ = await self._confirmations.standing(own.node)
        place = views.Place(told.origin_of(request), own.node)
        body = views.deployment(views.Shown(action, action.release, node.kind, place), self._now())
        return told.answer(request, ConfirmationAction(id=str(action.id), confirmation=body))

    async def _answer(self, request: web.Request) -> web.Response:
        own, number = told.own(request), told.action_in(request)
        said = await told.read(request, ConfirmationFeedback, ddi.MAX_FEEDBACK_BYTES)
        confirmed, details = said.confirmation is Answer.CONFIRMED, tuple(said.details or ())
        await self._confirmations.answer(own.node, number, confirmed=confirmed, details=details)
        return web.Response()

    async def _activate(self, request: web.Request) -> web.Response:
        own = told.own(request)
        said = AutoConfirm() if not request.can_read_body else await told.read(request, AutoConfirm, ddi.MAX_FEEDBACK_BYTES)
        await self._confirmations.agree_beforehand(own.node, said.initiator or "", said.remark or "")
        return web.Response()

    async def _deactivate(self, request: web.Request) -> web.Response:
        await self._confirmations.ask_again(told.own(request).node)
        return web.Response()
