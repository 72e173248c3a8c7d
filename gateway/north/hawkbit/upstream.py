"""One hawkBit server, asked for each of its nodes in turn and told what became of what it wants.

1. Every node that this server assigns for is a target there, and so is the gateway itself. Polls are spread over the interval
   that the server asks for, so that a thousand nodes do not come together.
2. While the server cannot be reached one poll at a time tries, ever more rarely; trouble with one target holds up no other.
3. Attributes are told when the server asks for them, and when they have changed.
4. The gateway's own system is updated by its own agent, as a node: what is deployed to the gateway's target is refused.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.database.engine import Database
from gateway.database.queries import nodes, outgoing, standings
from gateway.database.records import Node, Standing
from gateway.fleet.catalogue import AssignerState
from gateway.north.hawkbit.attributes import attributes_of, attributes_of_gateway, fingerprint
from gateway.north.hawkbit.delivery import Delivery
from gateway.north.hawkbit.following import Following, Server
from update.errors import FieldrelayError, SlowError, StoreError, UnreachableError
from update.wire import ddi

_LOG = logging.getLogger(__name__)
_CONCURRENT = 4
_TICK_S = 1.0
_SEND_EVERY_S = 2.0
_FIRST_S = 5.0
_LONGEST_S = 900.0
_SPREAD_FIRST_S = 30.0


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
        self._clock = clock
        self._chance = chance
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._away = 0
        self._resting_until_s = 0.0
        self._asking = asyncio.Semaphore(_CONCURRENT)
        self._contact: datetime | None = None
        self._trouble: FieldrelayError | None = None

    async def run(self) -> None:
        """For ever; whatever cannot be done now is tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_polling())
            group.create_task(self._keep_sending())

    async def state(self) -> AssignerState:
        """How the server stands."""
        async with self._database.reading() as transaction:
            waiting = (await outgoing.count_waiting(transaction)).get(self._server.name, 0)
        trouble = self._trouble
        return AssignerState(
            name=self._server.assigner,
            nodes=len([name for name in self._due if name]),
            contact=self._contact,
            waiting=waiting,
            code="" if trouble is None else trouble.code,
            problem="" if trouble is None else str(trouble),
        )

    async def poll_all(self) -> None:
        """Ask for every node that is due, once."""
        due = await self._nodes_due()
        if self._away:  # rule 2
            due = due[:1]
        await asyncio.gather(*[self._poll(node) for node in due])

    async def _keep_polling(self) -> None:
        while True:
            if self._clock() >= self._resting_until_s:
                try:
                    await self.poll_all()
                except StoreError as error:
                    self._note(error)
            await asyncio.sleep(_TICK_S)

    async def _keep_sending(self) -> None:
        while True:
            try:
                done = await self._delivery.deliver()
                if done.trouble is not None:
                    self._note(done.trouble)
            except StoreError as error:
                self._note(error)
            await asyncio.sleep(_SEND_EVERY_S)

    async def _nodes_due(self) -> list[Node | None]:
        """The nodes whose time has come, the longest waiting first; None stands for the gateway itself."""
        async with self._database.reading() as transaction:
            everyone = await nodes.of_assigner(transaction, self._server.assigner)
        targets: dict[str, Node | None] = {node.id: node for node in everyone}
        if self._gateway.controller:
            targets[""] = None
        for name in [name for name in self._due if name not in targets]:
            del self._due[name]
        for name in targets:
            self._due.setdefault(name, self._clock() + self._chance() * min(_SPREAD_FIRST_S, len(targets) * 0.1))
        ready = sorted((when, name) for name, when in self._due.items() if when <= self._clock())
        return [targets[name] for _, name in ready]

    async def _poll(self, node: Node | None) -> None:
        name = "" if node is None else node.id
        async with self._asking:
            try:
                sleep_s = await (self._ask_for_gateway() if node is None else self._ask(node))
            except FieldrelayError as error:
                self._failed(name, error)
                return
        self._away, self._trouble, self._contact = 0, None, self._now()
        self._failures.pop(name, None)
        self._due[name] = self._clock() + sleep_s * (0.9 + 0.2 * self._chance())

    async def _ask(self, node: Node) -> int:
        controller = self._controller(node.id)
        standing = await self._server.client.root(controller)
        told = attributes_of(node, self._gateway.name)
        await self._tell_attributes(controller, node.id, told, wanted=standing.attributes_wanted)
        await self._following.follow(node, controller, standing)
        return standing.sleep_s

    async def _ask_for_gateway(self) -> int:
        controller = self._gateway.controller
        standing = await self._server.client.root(controller)
        told = attributes_of_gateway(self._gateway.name, self._gateway.version, len(self._due) - 1)
        await self._tell_attributes(controller, "", told, wanted=standing.attributes_wanted)
        if action := standing.deployment:  # rule 4
            words = "the gateway's own system is updated by its own agent: deploy to that node"
            status = ddi.Status(
                execution=ddi.Execution.CLOSED, result=ddi.Result(finished=ddi.Finished.FAILURE), details=(words,)
            )
            await self._server.client.feedback(controller, action, ddi.Feedback(status=status))
        return standing.sleep_s

    async def _tell_attributes(self, controller: str, node: str, told: Mapping[str, str], *, wanted: bool) -> None:
        print_, upstream = fingerprint(told), self._server.name
        async with self._database.reading() as transaction:
            before = await standings.find(transaction, upstream, node)
        if not wanted and before.attributes == print_:
            return
        await self._server.client.attributes(controller, told)
        async with self._database.writing() as transaction:
            await standings.note(transaction, Standing(upstream, node, print_, self._now()))

    def _failed(self, name: str, error: FieldrelayError) -> None:
        self._note(error)
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        self._due[name] = self._clock() + self._pause_s(failures)
        if isinstance(error, (UnreachableError, SlowError)):  # it is the server, not this target
            self._away += 1
            self._resting_until_s = self._clock() + self._pause_s(min(self._away, failures))

    def _pause_s(self, failures: int) -> float:
        return min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures - 1, 30)) * (0.5 + self._chance() / 2)

    def _note(self, error: FieldrelayError) -> None:
        if self._trouble is None or self._trouble.code != error.code:
            _LOG.warning("%s: %s (%s)", self._server.assigner, error, error.code)
        self._trouble = error
