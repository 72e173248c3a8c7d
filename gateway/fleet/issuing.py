"""One wish for one node becomes one action, and what was wanted before it gives way.

- Wanting what is wanted already, or what runs already, changes nothing: wishes may be repeated.
- A new action carries the node's next fence. An older one is closed at once if the node was never told of it, else the node
  is told to let go of it first; its assigner learns why.
- A wish that waits for a confirmation is open at once where the node's people have confirmed beforehand.
- A node in a coordinated release takes no other order until that is over: what it runs is a part of the whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.database.engine import Transaction
from gateway.database.queries import actions, coordinations, nodes
from gateway.database.records import SITE, Action, ActionOutcome, ActionState, End, Node, Release, Terms
from gateway.fleet.telling import Telling
from update.errors import AssignerError

AT_ONCE = Terms()


class Verdict(StrEnum):
    """What an order meant for one node."""

    ORDERED = "ordered"
    ALREADY_ORDERED = "already-ordered"
    ALREADY_RUNNING = "already-running"
    ALREADY_ENDED = "already-ended"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The order's effect on one node; `action` is None where the release runs already."""

    node: str
    verdict: Verdict
    release: Release
    action: Action | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants: `source` is the assigner's own id of it, `confirm`: somebody at the node must agree first."""

    release: Release
    requested_by: str
    assigner: str = SITE
    reason: str = ""
    source: str = ""
    terms: Terms = AT_ONCE
    confirm: bool = False


async def issue(transaction: Transaction, telling: Telling, node: Node, wish: Wish, now: datetime) -> Assignment:
    """Make the action of a wish that was found admissible, unless there is nothing to do."""
    release = wish.release
    unfinished = await actions.unfinished(transaction, node.id)
    if unfinished and _is_wanted(unfinished[-1], wish):
        return Assignment(node.id, Verdict.ALREADY_ORDERED, release, unfinished[-1])
    if not unfinished and node.running.sha256 == release.sha256:
        return Assignment(node.id, Verdict.ALREADY_RUNNING, release, None)
    action = await actions.add(
        transaction,
        node.id,
        release,
        fence=await nodes.raise_fence(transaction, node.id),
        assigner=wish.assigner,
        requested_by=wish.requested_by,
        reason=wish.reason,
        now=now,
        terms=wish.terms,
        source=wish.source,
        waiting=wish.confirm and node.auto_confirm is None,
    )
    for older in unfinished:
        await _supersede(transaction, telling, older, action, now)
    return Assignment(node.id, Verdict.ORDERED, release, action)


async def withdraw(
    transaction: Transaction, telling: Telling, action: Action, end: End, *, superseded_by: int | None = None
) -> None:
    """Let an action go: at once if the node was never told of it, else the node is asked to, and its answer ends it."""
    if action.offered is None:
        await telling.close(transaction, action, end, superseded_by=superseded_by)
    else:
        await actions.mark_cancelling(transaction, action.id, superseded_by=superseded_by)


async def refuse_coordinated(transaction: Transaction, names: Iterable[str]) -> None:
    """Refuse what would interfere with a coordinated release: `AssignerError`."""
    held = await coordinations.held(transaction)
    if busy := [name for name in names if name in held]:
        raise AssignerError(
            f"node {', '.join(busy)} is part of coordinated release {held[busy[0]]}, which is under way: "
            f"wait for its end, or abort it with `fieldrelay gateway release abort {held[busy[0]]}`"
        )


def _is_wanted(newest: Action, wish: Wish) -> bool:
    same = (newest.release, newest.assigner, newest.source) == (wish.release, wish.assigner, wish.source)
    return same and newest.state in {ActionState.OPEN, ActionState.WAITING}


async def _supersede(transaction: Transaction, telling: Telling, older: Action, newer: Action, now: datetime) -> None:
    words = f"superseded by action {newer.id} before the node was told"
    if newer.assigner != older.assigner:
        words = f"superseded by action {newer.id}, which {newer.requested_by} ordered for {newer.assigner}: {newer.reason}"
    await withdraw(
        transaction, telling, older, End(now, ActionOutcome.SUPERSEDED, "", words.removesuffix(": ")), superseded_by=newer.id
    )
