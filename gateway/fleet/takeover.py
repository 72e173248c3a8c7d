"""What assigners elsewhere want: taken over as actions, changed and withdrawn as they say.

Rules:

1. An assigner has its own nodes only: a wish for another one's is refused (`AssignerError`), and the refusal goes back to it.
2. A wish is known by the assigner's own id of it (`source`). Known and open: its terms are brought up to date. Known and
   ended: it is not taken again, whatever has happened since; an override by a stick therefore holds until the assigner wants
   something newer.
3. A node that demands TUF is not offered what only a bundle's own signature vouches for (`ProvenanceError`), and one that has
   said what hardware it is, not what is for other hardware (`HardwareError`), nor a RAUC bundle that it would not take
   (`fitness`).
"""

from collections.abc import Callable
from datetime import datetime

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, End, Node, Terms
from gateway.fleet.fitness import UNJUDGED, Fitness, judge_node
from gateway.fleet.issuing import Assignment, Verdict, Wish, issue, withdraw
from gateway.fleet.telling import Telling
from update.errors import AssignerError, HardwareError, ProvenanceError, UnknownNodeError
from update.trust.verified import Provenance


class Takeover:
    """Takes over what assigners elsewhere want of this site's nodes."""

    def __init__(self, database: Database, now: Callable[[], datetime], telling: Telling, fitness: Fitness = UNJUDGED) -> None:
        self._database = database
        self._fitness = fitness
        self._now = now
        self._telling = telling

    async def take(self, node: str, wish: Wish, *, hardware: tuple[str, ...] = ()) -> Assignment:
        """Want `wish` of `node`; `hardware` are the identifiers that its release is for, empty where it does not say.

        Errors: `UnknownNodeError`, `AssignerError`, `ProvenanceError`, `HardwareError`, `UnsupportedError`, `RollbackError`.
        """
        contents = await self._fitness.contents([wish.release])
        async with self._database.writing() as transaction:
            known = await self._own(transaction, node, wish.assigner)
            before = await actions.of_source(transaction, node, wish.assigner, wish.source)
            if before is not None:
                return await self._again(transaction, before, wish)
            _admit(known, wish, hardware)
            judge_node(known, contents.get(wish.release.sha256))
            return await issue(transaction, self._telling, known, wish, self._now())

    async def known(self, node: str, assigner: str, source: str) -> Action | None:
        """The action that this assigner knows by `source`, if it was taken over before."""
        async with self._database.reading() as transaction:
            return await actions.of_source(transaction, node, assigner, source)

    async def withdraw(self, node: str, assigner: str, source: str, reason: str) -> Action | None:
        """Let go of what is wanted under this id; the action as it was, None where nothing is known of it."""
        async with self._database.writing() as transaction:
            action = await actions.of_source(transaction, node, assigner, source)
            if action is not None and action.state in {ActionState.OPEN, ActionState.WAITING}:
                end = End(self._now(), ActionOutcome.CANCELLED, "", reason)
                await withdraw(transaction, self._telling, action, end)
            return action

    async def change_terms(self, node: str, assigner: str, source: str, terms: Terms) -> None:
        """Have an open action run on other terms: forced, in its window, later."""
        async with self._database.writing() as transaction:
            action = await actions.of_source(transaction, node, assigner, source)
            if action is not None and action.terms != terms:
                await actions.set_terms(transaction, action.id, terms)

    async def _own(self, transaction: Transaction, node: str, assigner: str) -> Node:
        known = await nodes.find(transaction, node)
        if known is None:
            raise UnknownNodeError(f"no node {node} has been here; it is taken over at its first contact")
        if known.assigner != assigner:
            raise AssignerError(f"node {node} is assigned by {known.assigner}, not by {assigner}")
        return known

    async def _again(self, transaction: Transaction, before: Action, wish: Wish) -> Assignment:
        if before.state is ActionState.CLOSED:
            return Assignment(before.node, Verdict.ALREADY_ENDED, before.release, before)
        if before.terms != wish.terms:
            await actions.set_terms(transaction, before.id, wish.terms)
        if before.state is ActionState.WAITING and not wish.confirm:
            await actions.confirm(transaction, before.id)
        return Assignment(before.node, Verdict.ALREADY_ORDERED, before.release, before)


def _admit(node: Node, wish: Wish, hardware: tuple[str, ...]) -> None:
    if wish.release.provenance is Provenance.CMS and node.accepts is Provenance.TUF:
        raise ProvenanceError(
            f"node {node.id} demands a release that a repository's metadata names; {wish.release.path} is vouched for by its "
            "own signature only, which says nothing about its freshness"
        )
    if hardware and node.hardware is not None and not node.hardware.accepts(hardware):
        raise HardwareError(f"node {node.id} is {node.hardware}; the release is for {', '.join(hardware)}")
