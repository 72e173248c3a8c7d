"""What an upload means for nodes: one order for each, and how these stand.

- The nodes are those that the listener assigns for, as its patterns choose.
- A node that wants the same bundle already, of this assigner, is not ordered again: the upload joins what is under way. So a
  master whose connection broke may push once more.
- A node that may not have the bundle has failed, with the reason; it hears nothing.
- Taking a node back is an order of the release that it ran before, where that is known by an earlier success and still stored. A
  node that refuses older releases says so, and stays.
- Only *success* counts as one. What was installed and could not be verified to run has failed here: there is no third end.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionOutcome, ActionState, End, Release, ReportRecord
from gateway.fleet.issuing import Wish
from gateway.fleet.takeover import Takeover
from gateway.north.vouched import Obtained
from update.errors import AssignerError, BundleError, StateError, StoreError, TrustError, UnknownNodeError


@dataclass(frozen=True, slots=True)
class Member:
    """One node of an upload: the action to watch, or, where there is none, what came of it at once (`refusal`, or it runs).

    `previous` is what it ran before, None where nobody knows.
    """

    node: str
    action: int | None = None
    source: str = ""
    refusal: str = ""
    previous: Release | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one node stands: `failure` says why it failed; neither over nor failed: under way."""

    node: str
    over: bool = False
    failure: str = ""
    words: str = ""
    percent: int = 0


class NoTeller:
    """Nothing is stored for a master: it hears what happens while it is there, and asks again by pushing again."""

    async def said(self, _transaction: Transaction, _action: Action, _report: ReportRecord) -> None:
        """Nothing."""

    async def written(self, _transaction: Transaction, _action: Action) -> None:
        """Nothing."""

    async def ended(self, _transaction: Transaction, _action: Action, _end: End) -> None:
        """Nothing."""

    async def answered(self, _transaction: Transaction, _action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        """Nothing."""

    async def installed(self, _transaction: Transaction, _node: object, _name: str, _version: str) -> None:
        """Nothing."""


class Orders:
    """Orders for the nodes of one listener."""

    def __init__(self, database: Database, takeover: Takeover, assigner: str, patterns: Sequence[str]) -> None:
        self._database = database
        self._takeover = takeover
        self._assigner = assigner
        self._patterns = tuple(patterns) or ("*",)

    async def nodes(self) -> tuple[str, ...]:
        """Whom an upload is for, by name."""
        async with self._database.reading() as transaction:
            own = [node.id for node in await nodes.of_assigner(transaction, self._assigner)]
        return tuple(name for name in own if any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns))

    async def order(self, obtained: Obtained, source: str, master: str) -> tuple[Member, ...]:
        """Order the bundle for every node; `source` names the upload. `StateError` where there is nobody to order it for."""
        meant = await self.nodes()
        if not meant:
            raise StateError(f"no node is assigned to {self._assigner}, or its patterns choose none: hand nodes to it first")
        return tuple([await self._order(node, obtained, source, master) for node in meant])

    async def look(self, members: Sequence[Member]) -> tuple[Standing, ...]:
        """How they stand, in the same order."""
        async with self._database.reading() as transaction:
            return tuple([await _standing(transaction, member) for member in members])

    async def let_go(self, members: Sequence[Member], reason: str) -> None:
        """Withdraw what is still open: a node that was told of it is asked to let go, and does if it still can."""
        for member in members:
            if member.action is not None:
                await self._takeover.withdraw(member.node, self._assigner, member.source, reason)

    async def take_back(self, members: Sequence[Member], master: str, reason: str) -> tuple[Member, ...]:
        """Order for each of them what it ran before; those of which nobody knows it are left out."""
        return tuple([await self._take_back(each, each.previous, master, reason) for each in members if each.previous])

    async def _take_back(self, member: Member, previous: Release, master: str, reason: str) -> Member:
        wish = Wish(previous, master, self._assigner, reason=reason, source=f"{member.source}:back")
        try:
            assignment = await self._takeover.take(member.node, wish)
        except (AssignerError, UnknownNodeError, TrustError, BundleError, StoreError) as error:
            return Member(member.node, refusal=f"{error} ({error.code})")
        return Member(member.node, None if assignment.action is None else assignment.action.id, wish.source)

    async def _order(self, node: str, obtained: Obtained, source: str, master: str) -> Member:
        async with self._database.reading() as transaction:
            unfinished = await actions.unfinished(transaction, node)
            succeeded = await actions.succeeded(transaction, node)
        newest = unfinished[-1] if unfinished else None
        if newest is not None and self._is_the_same(newest, obtained):
            source = newest.source
        wish = Wish(obtained.release, master, self._assigner, reason=f"pushed by {master}", source=source)
        try:
            assignment = await self._takeover.take(node, wish, hardware=obtained.hardware)
        except (AssignerError, UnknownNodeError, TrustError, BundleError) as error:
            return Member(node, refusal=f"{error} ({error.code})")
        action = assignment.action
        if action is None:
            return Member(node)
        previous = succeeded.release if succeeded and succeeded.release.sha256 != obtained.release.sha256 else None
        return Member(node, action.id, action.source, previous=previous)

    def _is_the_same(self, action: Action, obtained: Obtained) -> bool:
        live = action.state in {ActionState.OPEN, ActionState.WAITING}
        return live and (action.assigner, action.release.sha256) == (self._assigner, obtained.release.sha256)


async def _standing(transaction: Transaction, member: Member) -> Standing:
    if member.action is None:
        return Standing(member.node, over=True, failure=member.refusal, words="runs it already", percent=100)
    action = await actions.find(transaction, member.action)
    if action is None:
        return Standing(member.node, over=True, failure="its order is gone from the database")
    if action.end is None:
        words, percent = _progress(await reports.newest(transaction, action.id, 1))
        return Standing(member.node, words=words or action.state, percent=percent)
    end = action.end
    if end.outcome is ActionOutcome.SUCCESS:
        return Standing(member.node, over=True, words=end.message or "runs", percent=100)
    code = f" ({end.code})" if end.code else ""
    return Standing(member.node, over=True, failure=f"{end.outcome}: {end.message}{code}".replace(": (", " ("))


def _progress(newest: Sequence[ReportRecord]) -> tuple[str, int]:
    """What the node said last: the client's line, or the state and figures of our agent."""
    if not newest:
        return "", 0
    body: Mapping[str, object] = newest[0].body or {}
    state, done, total = body.get("state"), body.get("done"), body.get("total")
    words = newest[0].details[-1] if newest[0].details else ""
    percent = 100 * done // total if isinstance(done, int) and isinstance(total, int) and total > 0 else 0
    return (state if isinstance(state, str) else words), percent
