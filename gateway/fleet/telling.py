"""Whoever assigned an action is told what becomes of it, in the same transaction that books it: never one without the other.

An assigner that lives elsewhere (`hawkbit:NAME`, `wfx:NAME`) has a `Teller`, which stores what is to be sent; sending is
another matter (`gateway.north`). The site itself needs none: it reads the database. A `Witness` is told of every end, whoever
assigned.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from gateway.database.engine import Transaction
from gateway.database.queries import actions
from gateway.database.records import Action, ActionState, End, Node, ReportRecord


class Teller(Protocol):
    """Stores what one assigner is to be told."""

    async def said(self, transaction: Transaction, action: Action, report: ReportRecord) -> None:
        """A node said something that does not end the action."""
        ...

    async def written(self, transaction: Transaction, action: Action) -> None:
        """The node says that it has installed; told once, before anybody knows whether it runs."""
        ...

    async def ended(self, transaction: Transaction, action: Action, end: End) -> None:
        """The action is closed; told once."""
        ...

    async def answered(self, transaction: Transaction, action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        """Somebody at the node agreed to an action that waited for it, or did not."""
        ...

    async def installed(self, transaction: Transaction, node: Node, name: str, version: str) -> None:
        """A node says that it runs what its assigner had not asked for."""
        ...


class Witness(Protocol):
    """Stores what a receiver of all results is to be told."""

    async def ended(self, transaction: Transaction, action: Action, end: End) -> None:
        """The action is closed; told once."""
        ...


class Telling:
    """The tellers of all assigners, by the assigner's name as it stands in actions, and who hears of everything."""

    def __init__(self, tellers: Mapping[str, Teller], witnesses: Sequence[Witness] = ()) -> None:
        self._tellers = tellers
        self._witnesses = tuple(witnesses)

    @property
    def assigners(self) -> Collection[str]:
        """Who is told."""
        return self._tellers.keys()

    async def said(self, transaction: Transaction, action: Action, report: ReportRecord) -> None:
        """Pass on what a node said."""
        if (teller := self._tellers.get(action.assigner)) is not None and action.state is not ActionState.CLOSED:
            await teller.said(transaction, action, report)

    async def written(self, transaction: Transaction, action: Action) -> None:
        """Pass on that a node has installed, the first time."""
        if (teller := self._tellers.get(action.assigner)) is not None and action.installed is None:
            await teller.written(transaction, action)

    async def close(self, transaction: Transaction, action: Action, end: End, *, superseded_by: int | None = None) -> None:
        """Close an action and pass on how it ended; one that is closed already stays as it is, and nobody is told again."""
        if action.state is ActionState.CLOSED:
            return
        await actions.close(transaction, action.id, end, superseded_by=superseded_by)
        if (teller := self._tellers.get(action.assigner)) is not None:
            await teller.ended(transaction, action, end)
        for witness in self._witnesses:
            await witness.ended(transaction, action, end)

    async def answered(self, transaction: Transaction, action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        """Pass on what somebody at the node said to an action."""
        if (teller := self._tellers.get(action.assigner)) is not None:
            await teller.answered(transaction, action, confirmed=confirmed, details=details)

    async def installed(self, transaction: Transaction, node: Node, name: str, version: str) -> None:
        """Pass on what came to a node by hand."""
        if (teller := self._tellers.get(node.assigner)) is not None:
            await teller.installed(transaction, node, name, version)


NOBODY = Telling({})
"""For a site whose orders are all its own."""
