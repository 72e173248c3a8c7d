"""What came by hand, wanted of the nodes that it is for, as if an operator had ordered it.

1. Each node is given the newest release that came for its hardware, by release counter; one that is not newer than what it runs
   is left alone: a stick takes nobody back.
2. Nodes of another assigner only where the site allows it (`override`); that is recorded like every override.
3. A release that was ordered before and has ended is ordered again if somebody plugged the medium in to have it tried once more,
   and not because it was still there when the gateway started.
4. A node that may not have it (hardware, provenance, a coordinated release) is told apart by name; the others get theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import SITE, Action, ActionOutcome, ActionState, Node, Release
from gateway.fleet.catalogue import BUNDLE_SUFFIXES, Catalogue, for_hardware
from gateway.fleet.issuing import Wish
from gateway.fleet.nodes import Assigner, Order, release_of
from gateway.fleet.takeover import Takeover
from media.records import NodeResult
from update.errors import FieldrelayError
from update.trust.verified import TargetInfo


@dataclass(frozen=True, slots=True)
class Brought:
    """A release that came; `counter` orders releases of one repository, `hardware` are the identifiers that it is for."""

    release: Release
    counter: int
    hardware: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Carrier:
    """Who brought it: `source` is a name of this visit, `left_in`: nobody has plugged it in now."""

    source: str
    label: str
    left_in: bool


class ByHand:
    """Orders what media bring. `override`: for nodes of other assigners too."""

    def __init__(
        self, database: Database, catalogue: Catalogue, assigner: Assigner, takeover: Takeover, *, override: bool
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._assigner = assigner
        self._takeover = takeover
        self._override = override

    async def order(self, repositories: Sequence[str], singles: Sequence[Brought], carrier: Carrier) -> tuple[NodeResult, ...]:
        """Want of every node what came for it, from these repositories or as single bundles. Errors: `StoreError`."""
        listed = [target for name in repositories for target in self._catalogue.targets(name)]
        bundles = [target for target in listed if target.path.endswith(BUNDLE_SUFFIXES)]
        async with self._database.reading() as transaction:
            everyone, latest = await nodes.everyone(transaction), await actions.latest(transaction)
        results = []
        for node in everyone:
            if node.assigner != SITE and not self._override:
                continue
            wanted = self._newest(node, bundles) or _single(node, singles)
            if wanted is not None and not _is_settled(node, latest.get(node.id), wanted.release, carrier):
                results.append(await self._order(node, wanted, carrier))
        return tuple(results)

    async def look(self, results: Sequence[NodeResult]) -> tuple[NodeResult, ...]:
        """How what was ordered stands now. Errors: `StoreError`."""
        numbers = [result.action for result in results if result.action]
        async with self._database.reading() as transaction:
            found = await actions.several(transaction, numbers)
            running = {node.id: node.running.version for node in await nodes.everyone(transaction)}
        return tuple(_now(result, found, running) for result in results)

    def _newest(self, node: Node, bundles: Sequence[TargetInfo]) -> Brought | None:
        """The newest release of the repositories for a node that runs an older one."""
        if node.hardware is None:
            return None
        fitting = [target for target in bundles if node.hardware.accepts(target.custom.hw_ids)]
        runs = [target.custom.release_counter for target in bundles if target.sha256 == node.running.sha256]
        newest = max((target.custom.release_counter for target in fitting), default=0)
        if not fitting or (runs and newest <= max(runs)):
            return None
        candidates = [target for target in fitting if target.custom.release_counter == newest]
        try:
            chosen = for_hardware(candidates, node.hardware, node.id)
        except FieldrelayError:  # several releases with one number: a person must choose
            return None
        return Brought(release_of(chosen), newest, chosen.custom.hw_ids)

    async def _order(self, node: Node, wanted: Brought, carrier: Carrier) -> NodeResult:
        result = NodeResult(node=node.id, wanted=wanted.release.version, runs=node.running.version)
        reason = f"brought by {carrier.label}"[:200]
        try:
            if node.assigner == SITE:
                wish = Wish(wanted.release, reason, reason=reason, source=f"{carrier.source}:{wanted.release.sha256[:16]}")
                given = await self._takeover.take(node.id, wish, hardware=wanted.hardware)
            else:
                order = Order(wanted.release.path, (node.id,), reason, wanted.release.repository, reason, override=True)
                (given,) = await self._assigner.assign(order)
        except FieldrelayError as error:
            return replace(result, outcome=ActionOutcome.REFUSED, code=error.code, message=str(error)[:1000])
        if given.action is None:
            return replace(result, outcome=ActionOutcome.SUCCESS)
        return replace(result, action=given.action.id)


def _single(node: Node, singles: Sequence[Brought]) -> Brought | None:
    """The first single bundle for a node; one that does not say for which hardware is for every node that accepts it."""
    for each in singles:
        says = node.hardware is None or not each.hardware or node.hardware.accepts(each.hardware)
        if says and each.release.sha256 != node.running.sha256:
            return each
    return None


def _is_settled(node: Node, latest: Action | None, wanted: Release, carrier: Carrier) -> bool:
    """Whether there is nothing to order: it runs, or was ordered before and nobody asks to have it tried once more."""
    if node.running.sha256 == wanted.sha256:
        return True
    return latest is not None and latest.release.sha256 == wanted.sha256 and latest.end is not None and carrier.left_in


def _now(result: NodeResult, found: Mapping[int, Action], running: Mapping[str, str]) -> NodeResult:
    action = found.get(result.action)
    seen = replace(result, runs=running.get(result.node, result.runs))
    if action is None or action.state is not ActionState.CLOSED or action.end is None:
        return seen
    return replace(seen, outcome=action.end.outcome, code=action.end.code, message=action.end.message[:1000])
