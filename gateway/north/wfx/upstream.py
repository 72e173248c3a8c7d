"""One wfx, asked for each of its nodes in turn and told what became of what it wants.

1. Every node that this server assigns for is a client there. It is asked for at the configured interval (`north.rounds`), and at
   once when the stream of events names one of its jobs.
2. The stream is a convenience: it is opened again when it ends, ever more rarely while it cannot be had, and anew when the nodes
   have changed; what it misses the polls find. What the clients themselves said is no news.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import datetime

from gateway.database.engine import Database
from gateway.database.queries import nodes, outgoing
from gateway.database.records import Node
from gateway.fleet.catalogue import AssignerState
from gateway.north.rounds import Rounds
from gateway.north.wfx.delivery import Delivery
from gateway.north.wfx.following import Following, Server
from gateway.north.wfx.messages import Event
from update.errors import FieldrelayError

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
_FIRST_S = 2.0
_LONGEST_S = 300.0
_RENEW_S = 600.0
_SAID = "UPDATE_STATUS"


class WfxUpstream:
    """Polls, listens and delivers until it is cancelled. `client_id` gives the client id of a node."""

    def __init__(
        self,
        database: Database,
        server: Server,
        following: Following,
        delivery: Delivery,
        *,
        now: Callable[[], datetime],
        client_id: Callable[[str], str],
        poll_interval_s: int,
        events: bool,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._server = server
        self._following = following
        self._delivery = delivery
        self._client_id = client_id
        self._poll_interval_s = poll_interval_s
        self._events = events
        self._chance = chance
        self._rounds = Rounds(server.assigner, self._everybody, self._ask, now=now, clock=clock, chance=chance)

    async def run(self) -> None:
        """For ever; whatever cannot be done now is tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rounds.run())
            group.create_task(self._delivery.run(self._rounds.note))
            if self._events:
                group.create_task(self._keep_listening())

    async def state(self) -> AssignerState:
        """How the server stands."""
        async with self._database.reading() as transaction:
            waiting = (await outgoing.count_waiting(transaction)).get(self._server.assigner, 0)
        trouble = self._rounds.trouble
        return AssignerState(
            name=self._server.assigner,
            nodes=len(self._rounds.names),
            contact=self._rounds.contact,
            waiting=waiting,
            code="" if trouble is None else trouble.code,
            problem="" if trouble is None else str(trouble),
        )

    def hasten(self) -> None:
        """Ask for every node soon: there may be news."""
        self._rounds.hasten_all()

    async def poll_all(self) -> None:
        """Ask for every node that is due, once."""
        await self._rounds.poll_all()

    async def listen(self, clients: Mapping[str, str]) -> None:
        """Hasten the nodes that events name, until the stream ends; `clients` are the nodes by client id."""
        async with aclosing(self._server.client.events(tuple(clients))) as events:
            async for event in events:
                if event.job.client in clients and not _is_our_own(event):
                    self._rounds.hasten(clients[event.job.client])

    async def _everybody(self) -> dict[str, Node]:
        async with self._database.reading() as transaction:
            return {node.id: node for node in await nodes.of_assigner(transaction, self._server.assigner)}

    async def _ask(self, node: Node) -> float:
        client = self._client_id(node.id)
        await self._following.follow(node, client, await self._server.client.open_jobs(client))
        return self._poll_interval_s

    def _clients(self) -> dict[str, str]:
        return {self._client_id(name): name for name in sorted(self._rounds.names)}

    async def _keep_listening(self) -> None:
        failures = 0
        while True:
            if clients := self._clients():
                failures = 0 if await self._listen_while_same(clients) else failures + 1
            pause_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures, 30)) * (0.5 + self._chance() / 2)
            await asyncio.sleep(max(_LOOK_S, pause_s))

    async def _listen_while_same(self, clients: Mapping[str, str]) -> bool:
        """Listen until the nodes change or it is time to look whether the stream still lives; False if it could not be had."""
        listening = asyncio.create_task(self.listen(clients))
        try:
            async with asyncio.timeout(_RENEW_S):
                while not listening.done() and self._clients() == clients:
                    await asyncio.wait([listening], timeout=_LOOK_S)
        except TimeoutError:
            return True
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        if listening.cancelled():
            return True
        error = listening.exception()
        if isinstance(error, FieldrelayError):
            _LOG.info("%s: no events: %s (%s)", self._server.assigner, error, error.code)
        elif error is not None:
            raise error
        return False


def _is_our_own(event: Event) -> bool:
    """Whether it tells what the client itself said; a step of the server's own names no client."""
    return event.action == _SAID and event.job.status.client == event.job.client
