"""The operator's commands about what receivers elsewhere were not told yet: to see it, and to have it sent now."""

from collections.abc import Iterable

from aiohttp import web

from gateway.control import report_messages as messages
from gateway.control.report_messages import ReportStanding, ReportState
from gateway.database.engine import Database
from gateway.database.queries import outgoing
from gateway.database.records import Outgoing
from gateway.edge import answer, read_message
from update.errors import NotFoundError


class ReportControl:
    """What was stored for receivers elsewhere; whoever sends it (`gateway.north`) looks every few seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        return [web.get(messages.REPORTS, self._list), web.post(messages.RESEND, self._resend)]

    async def _list(self, _request: web.Request) -> web.Response:
        async with self._database.reading() as transaction:
            found = await outgoing.undelivered(transaction)
        return _answer(found)

    async def _resend(self, request: web.Request) -> web.Response:
        wanted = (await read_message(request, messages.RESEND_REQUEST)).messages
        async with self._database.writing() as transaction:
            found = await outgoing.resend(transaction, wanted)
            lacking = sorted(set(wanted or ()) - {each.id for each in found})
            if lacking:
                numbers = ", ".join(map(str, lacking[:10]))
                raise NotFoundError(f"no message {numbers} waits or was given up; `fieldrelay gateway reports` lists them")
        return _answer(found)


def _answer(found: Iterable[Outgoing]) -> web.Response:
    return answer(messages.REPORTS_REPLY, tuple(map(_state, found)))


def _state(message: Outgoing) -> ReportState:
    waits = message.delivered is None
    return ReportState(
        id=message.id,
        receiver=message.upstream,
        node=message.node,
        action=message.source,
        matter=message.matter,
        final=message.final,
        standing=ReportStanding.WAITING if waits else ReportStanding.GIVEN_UP,
        created=message.created,
        attempts=message.attempts,
        not_before=message.not_before,
        trouble=message.trouble if waits else message.trouble.removeprefix(outgoing.GIVEN_UP),
    )
