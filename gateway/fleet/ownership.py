"""What the plant's people decide about nodes: who assigns for them, what speaks for them, what they accept, and what ends.

- A node that is handed to another assigner ends what the one before wanted of it, with the reason; that one is told.
- Only an assigner that exists can get nodes: `site`, or one that is configured.
- What is part of a coordinated release is neither handed over nor cancelled alone.
- People cancel what the site ordered. What another assigner wants is cancelled there, or overridden by an order.
"""

from collections.abc import Callable
from datetime import datetime

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes
from gateway.database.records import SITE, Action, ActionOutcome, ActionState, ClientKind, End, Node
from gateway.fleet.issuing import refuse_coordinated, withdraw
from gateway.fleet.telling import Telling
from update.errors import AssignerError, UnknownNodeError
from update.trust.verified import Provenance


class Ownership:
    """Carries it out; `telling` knows the assigners that are configured, beside the site itself."""

    def __init__(self, database: Database, now: Callable[[], datetime], telling: Telling) -> None:
        self._database = database
        self._now = now
        self._telling = telling
        self._assigners = (SITE, *sorted(telling.assigners))

    async def hand_over(self, node: str, assigner: str, reason: str) -> Node:
        """Have another one assign for a node. Errors: `UnknownNodeError`, `AssignerError` for one that does not exist."""
        if assigner not in self._assigners:
            raise AssignerError(f"there is no assigner {assigner!r}; there are {', '.join(self._assigners)}")
        async with self._database.writing() as transaction:
            known = await _known(transaction, node)
            if known.assigner != assigner:
                await refuse_coordinated(transaction, [node])
                words = f"node {node} was handed to {assigner}: {reason}".removesuffix(": ")
                for action in await actions.unfinished(transaction, node):
                    await self._end(transaction, action, words)
                await nodes.set_assigner(transaction, node, assigner)
            return await _known(transaction, node)

    async def set_kind(self, node: str, kind: ClientKind) -> Node:
        """What speaks for a node, whatever it calls itself. `UnknownNodeError`."""
        async with self._database.writing() as transaction:
            await _known(transaction, node)
            await nodes.set_kind(transaction, node, kind, fixed=True)
            return await _known(transaction, node)

    async def set_accepts(self, node: str, provenance: Provenance) -> Node:
        """The weakest provenance that a node is offered. `UnknownNodeError`."""
        async with self._database.writing() as transaction:
            await _known(transaction, node)
            await nodes.set_accepts(transaction, node, provenance)
            return await _known(transaction, node)

    async def cancel(self, node: str, reason: str) -> tuple[Action, ...]:
        """Let go of what the site ordered for a node. Errors: `UnknownNodeError`, `AssignerError` for others' orders alone."""
        async with self._database.writing() as transaction:
            await _known(transaction, node)
            await refuse_coordinated(transaction, [node])
            unfinished = [
                each for each in await actions.unfinished(transaction, node) if each.state is not ActionState.CANCELLING
            ]
            own = [action for action in unfinished if action.assigner == SITE]
            if unfinished and not own:
                raise AssignerError(
                    f"what is wanted of node {node} is {unfinished[0].assigner}'s: cancel it there, or override it"
                )
            for action in own:
                await self._end(transaction, action, reason)
            return tuple(own)

    async def _end(self, transaction: Transaction, action: Action, words: str) -> None:
        await withdraw(transaction, self._telling, action, End(self._now(), ActionOutcome.CANCELLED, "", words))


async def _known(transaction: Transaction, node: str) -> Node:
    known = await nodes.find(transaction, node)
    if known is None:
        raise UnknownNodeError(f"no node {node} has been here; see `fieldrelay gateway nodes`")
    return known
