"""Orders: which release shall run on which nodes.

- Every node has exactly one assigner; an order of another one is refused (`AssignerError`).
- An order is taken for all its nodes or for none.
- Ordering what is ordered already, or what runs already, changes nothing: orders may be repeated.
- A new order supersedes an open one: it carries the node's next fence; the older action is closed at once if the node was
  never told of it, else the node is told to let go of it first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes
from gateway.database.records import SITE, Action, ActionOutcome, ActionState, End, Node, Release
from gateway.fleet.catalogue import Catalogue, find_release, for_hardware
from update.digest import Digest
from update.errors import AssignerError, HardwareError, UnknownNodeError
from update.trust.verified import TargetInfo

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Order:
    """A release (target path or version; `repository` empty: any) for `nodes`; None: for all that `assigner` has."""

    release: str
    nodes: tuple[str, ...] | None
    requested_by: str
    repository: str = ""
    reason: str = ""
    assigner: str = SITE


async def wanted_content(database: Database) -> frozenset[Digest]:
    """The content that open orders wait for: it must not go to make room for other content."""
    async with database.reading() as transaction:
        return await actions.wanted(transaction)


class Verdict(StrEnum):
    """What an order meant for one node."""

    ORDERED = "ordered"
    ALREADY_ORDERED = "already-ordered"
    ALREADY_RUNNING = "already-running"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The order's effect on one node; `action` is None where the release runs already."""

    node: str
    verdict: Verdict
    release: Release
    action: Action | None


class Assigner:
    """Takes orders for the nodes of this site."""

    def __init__(self, database: Database, catalogue: Catalogue, now: Now) -> None:
        self._database = database
        self._catalogue = catalogue
        self._now = now

    async def assign(self, order: Order) -> tuple[Assignment, ...]:
        """Take the order, or refuse it by name.

        Errors: `UnknownTargetError`, `AmbiguousError`, `UnknownNodeError`, `AssignerError`, `HardwareError`.
        """
        candidates = find_release(self._catalogue, order.release, order.repository)
        async with self._database.writing() as transaction:
            meant = await _nodes_meant(transaction, order)
            chosen = _choose(meant, candidates)
            return tuple([await self._assign_one(transaction, order, node, target) for node, target in chosen])

    async def _assign_one(self, transaction: Transaction, order: Order, node: Node, target: TargetInfo) -> Assignment:
        release = release_of(target)
        open_ones = await actions.unfinished(transaction, node.id)
        if open_ones and open_ones[-1].release == release and open_ones[-1].state is ActionState.OPEN:
            return Assignment(node.id, Verdict.ALREADY_ORDERED, release, open_ones[-1])
        if not open_ones and node.running.sha256 == release.sha256:
            return Assignment(node.id, Verdict.ALREADY_RUNNING, release, None)
        now = self._now()
        action = await actions.add(
            transaction,
            node.id,
            release,
            fence=await nodes.raise_fence(transaction, node.id),
            assigner=order.assigner,
            requested_by=order.requested_by,
            reason=order.reason,
            now=now,
        )
        for older in open_ones:
            await _supersede(transaction, older, action, now)
        return Assignment(node.id, Verdict.ORDERED, release, action)


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
    if foreign := [f"{node.id} ({node.assigner})" for node in meant if node.assigner != order.assigner]:
        raise AssignerError(f"{order.assigner} may not order for nodes of another assigner: {', '.join(foreign)}")
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


async def _supersede(transaction: Transaction, older: Action, newer: Action, now: datetime) -> None:
    if older.offered is None:
        end = End(now, ActionOutcome.SUPERSEDED, "", f"superseded by action {newer.id} before the node was told")
        await actions.close(transaction, older.id, end, superseded_by=newer.id)
    else:
        await actions.mark_cancelling(transaction, older.id, superseded_by=newer.id)
