"""Orders: which release shall run on which nodes.

- Every node has exactly one assigner; an order of another one is refused (`AssignerError`).
- An order is taken for all its nodes or for none.
- An override (a stick in somebody's hand) is taken for any node. It is recorded with its reason, and holds until the node's
  assigner wants something newer; what the assigner wanted before is closed there with the reason.
- What a RAUC node would not take is refused, as far as that is known (`gateway.fleet.fitness`).
- Ordering again, and what a new order does to an older one: `gateway.fleet.issuing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, coordinations, nodes
from gateway.database.records import SITE, Node, Release
from gateway.fleet.catalogue import Catalogue, find_release, for_hardware
from gateway.fleet.fitness import UNJUDGED, Fitness, judge_node
from gateway.fleet.issuing import Assignment, Wish, issue, refuse_coordinated
from gateway.fleet.telling import NOBODY, Telling
from update.digest import Digest
from update.errors import AssignerError, HardwareError, UnknownNodeError
from update.trust.verified import TargetInfo

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Order:
    """A release (target path or version; `repository` empty: any) for `nodes`; None: for all that `assigner` has.

    `override`: also for nodes of another assigner, which then have to be named.
    """

    release: str
    nodes: tuple[str, ...] | None
    requested_by: str
    repository: str = ""
    reason: str = ""
    assigner: str = SITE
    override: bool = False


async def wanted_content(database: Database) -> frozenset[Digest]:
    """The content that orders and coordinated releases wait for: it must not go to make room for other content."""
    async with database.reading() as transaction:
        return await actions.wanted(transaction) | await coordinations.wanted(transaction)


class Assigner:
    """Takes orders for the nodes of this site."""

    def __init__(
        self, database: Database, catalogue: Catalogue, now: Now, telling: Telling = NOBODY, fitness: Fitness = UNJUDGED
    ) -> None:
        self._database = database
        self._fitness = fitness
        self._catalogue = catalogue
        self._now = now
        self._telling = telling

    async def assign(self, order: Order) -> tuple[Assignment, ...]:
        """Take the order, or refuse it by name.

        Errors: `UnknownTargetError`, `AmbiguousError`, `UnknownNodeError`, `AssignerError`, `HardwareError`,
        `UnsupportedError`, `RollbackError`.
        """
        candidates = find_release(self._catalogue, order.release, order.repository)
        contents = await self._fitness.contents(map(release_of, candidates))
        async with self._database.writing() as transaction:
            meant = await _nodes_meant(transaction, order)
            chosen = _choose(meant, candidates)
            await refuse_coordinated(transaction, [node.id for node in meant])
            for node, target in chosen:
                judge_node(node, contents.get(target.sha256))
            return tuple([await self._assign_one(transaction, order, node, target) for node, target in chosen])

    async def _assign_one(self, transaction: Transaction, order: Order, node: Node, target: TargetInfo) -> Assignment:
        wish = Wish(release_of(target), order.requested_by, order.assigner, order.reason)
        return await issue(transaction, self._telling, node, wish, self._now())


def release_of(target: TargetInfo) -> Release:
    """What an action keeps of a target."""
    return Release(target.repository, target.path, target.sha256, target.length, target.custom.version)


async def _nodes_meant(transaction: Transaction, order: Order) -> tuple[Node, ...]:
    if order.nodes is None:
        everyone = await nodes.everyone(transaction)
        return tuple(node for node in everyone if node.assigner == order.assigner)
    found = {name: await nodes.find(transaction, name) for name in dict.fromkeys(order.nodes)}
    if unknown := [name for name, node in found.items() if node is None]:
        raise UnknownNodeError(f"no node {', '.join(unknown)} has been here; see `fieldrelay gateway nodes`")
    meant = tuple(node for node in found.values() if node is not None)
    foreign = [f"{node.id} ({node.assigner})" for node in meant if node.assigner != order.assigner]
    if foreign and not order.override:
        raise AssignerError(f"{order.assigner} may not order for nodes of another assigner: {', '.join(foreign)}")
    if foreign and not order.reason:
        raise AssignerError(
            f"give a reason for overriding what others want of {', '.join(foreign)}; it is recorded and told them"
        )
    return meant


def _choose(meant: Sequence[Node], candidates: Sequence[TargetInfo]) -> list[tuple[Node, TargetInfo]]:
    """The target of each node; the refusal names every node that the release is not for."""
    chosen: list[tuple[Node, TargetInfo]] = []
    refused: list[str] = []
    for node in meant:
        try:
            chosen.append((node, for_hardware(candidates, node.hardware, node.id)))
        except HardwareError as error:
            refused.append(str(error))
    if refused:
        raise HardwareError("; ".join(refused))
    return chosen
