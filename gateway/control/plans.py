"""The operator's question about a release plan: what would be done here now. Nothing is begun by it."""

from aiohttp import web

from gateway.control import plan_messages as messages
from gateway.control.plan_messages import PlanReply
from gateway.edge import answer, read_message
from gateway.fleet.releases import Planner
from gateway.fleet.schedule import PlanRefused


class PlanControl:
    """Has plans judged; a refused one is an answer, too, because its findings are what is asked for."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def routes(self) -> list[web.RouteDef]:
        """One question."""
        return [web.post(messages.PLANS, self._judge)]

    async def _judge(self, request: web.Request) -> web.Response:
        wanted = await read_message(request, messages.PLAN_REQUEST)
        planned = await self._planner.plan(wanted.release, wanted.repository)
        found, about = planned.schedule, planned.plan.description
        if isinstance(found, PlanRefused):
            return answer(messages.PLAN_REPLY, PlanReply(repository=planned.repository, description=about, refused=found))
        return answer(messages.PLAN_REPLY, PlanReply(repository=planned.repository, description=about, schedule=found))
