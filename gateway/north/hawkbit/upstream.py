"""One hawkBit server, asked for each of its nodes in turn and told what became of what it wants.

1. Every node that this server assigns for is a target there, and so is the gateway itself. The server says how often each is
   asked for (`north.rounds`).
2. Attributes are told when the server asks for them, and when they have changed.
3. The gateway's own system is updated by its own agent, as a node: what is deployed to the gateway's target is refused.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gateway.database.engine import Database
from gateway.database.queries import contacts, nodes, outgoing, standings
from gateway.database.records import Standing
from gateway.fleet.catalogue import AssignerState
from gateway.north.hawkbit.attributes import attributes_of, attributes_of_gateway, fingerprint
from gateway.north.hawkbit.delivery import Delivery
from gateway.north.hawkbit.following import Following, Server
from gateway.north.rounds import Rounds
from update.errors import UnknownNodeError
from update.wire import ddi

_GATEWAY = ""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the server is told of the gateway itself, as target `controller`; empty: it is none."""

    name: str
    version: str
    controller: str


class HawkbitUpstream:
    """Polls and delivers until it is cancelled. `controller` gives the controller id of a node."""

    def __init__(
        self,
        database: Database,
        server: Server,
        following: Following,
        delivery: Delivery,
        gateway: Gateway,
        *,
        now: Callable[[], datetime],
        controller: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._server = server
        self._following = following
        self._delivery = delivery
        self._gateway = gateway
        self._now = now
        self._controller = controller
        self._told: dict[str, str] = {}  # what is stored of each node: only this upstream writes it
        self._rounds = Rounds(server.assigner, self._everybody, self._ask, now=now, clock=clock, chance=chance)

    async def run(self) -> None:
        """For ever; whatever cannot be done now is tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rounds.run())
            group.create_task(self._delivery.run(self._rounds.note))

    async def state(self) -> AssignerState:
        """How the server stands."""
        async with self._database.reading() as transaction:
            waiting = (await outgoing.count_waiting(transaction)).get(self._server.name, 0)
        trouble = self._rounds.trouble
        return AssignerState(
            name=self._server.assigner,
            nodes=len([name for name in self._rounds.names if name]),
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

    async def _everybody(self) -> dict[str, str]:
        """The names of the nodes; the empty one stands for the gateway itself."""
        async with self._database.reading() as transaction:
            names = await nodes.names_of_assigner(transaction, self._server.assigner)
        return {name: name for name in (*names, *([_GATEWAY] if self._gateway.controller else []))}

    async def _ask(self, name: str) -> float:
        if name == _GATEWAY:
            return await self._ask_for_gateway()
        found = await self._database.look(partial(contacts.standing, node=name))
        if found is None:
            raise UnknownNodeError(f"no node {name} has been here")
        node, controller = found[0], self._controller(name)
        standing = await self._server.client.root(controller)
        told = attributes_of(node, self._gateway.name)
        await self._tell_attributes(controller, name, told, wanted=standing.attributes_wanted)
        await self._following.follow(node, controller, standing)
        return standing.sleep_s

    async def _ask_for_gateway(self) -> int:
        controller = self._gateway.controller
        standing = await self._server.client.root(controller)
        told = attributes_of_gateway(self._gateway.name, self._gateway.version, len(self._rounds.names) - 1)
        await self._tell_attributes(controller, _GATEWAY, told, wanted=standing.attributes_wanted)
        if action := standing.deployment:  # rule 3
            words = "the gateway's own system is updated by its own agent: deploy to that node"
            status = ddi.Status(
                execution=ddi.Execution.CLOSED, result=ddi.Result(finished=ddi.Finished.FAILURE), details=(words,)
            )
            await self._server.client.feedback(controller, action, ddi.Feedback(status=status))
        return standing.sleep_s

    async def _tell_attributes(self, controller: str, node: str, told: Mapping[str, str], *, wanted: bool) -> None:
        print_, upstream = fingerprint(told), self._server.name
        if node not in self._told:
            async with self._database.reading() as transaction:
                self._told[node] = (await standings.find(transaction, upstream, node)).attributes
        if not wanted and self._told[node] == print_:
            return
        await self._server.client.attributes(controller, told)
        async with self._database.writing() as transaction:
            await standings.note(transaction, Standing(upstream, node, print_, self._now()))
        self._told[node] = print_
