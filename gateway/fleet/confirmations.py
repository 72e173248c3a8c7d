"""Somebody at a node agrees to what is wanted there, or not; once, or beforehand for everything.

- A denied action goes on waiting, as in hawkBit: who denied it may agree later, and its assigner may withdraw it.
- Agreeing beforehand opens what waits now, too.
- What a node says about it reaches the assigner like everything it says.
"""

import uuid
from collections.abc import Callable
from datetime import datetime

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionState, AutoConfirm, Node, ReportRecord
from gateway.fleet.telling import Telling
from update.errors import ForbiddenError, NotFoundError
from update.wire.ddi import Execution, Finished

_MAX_DETAILS = 50


class Confirmations:
    """Errors of all: `NotFoundError` where nothing waits, `ForbiddenError` for another node's action."""

    def __init__(self, database: Database, now: Callable[[], datetime], telling: Telling) -> None:
        self._database = database
        self._now = now
        self._telling = telling

    async def standing(self, node: str) -> tuple[Node, Action | None]:
        """The node, and what waits to be confirmed there."""
        async with self._database.reading() as transaction:
            known = await _registered(transaction, node)
            unfinished = await actions.unfinished(transaction, node)
        return known, next((action for action in unfinished if action.state is ActionState.WAITING), None)

    async def waiting(self, node: str, action: int) -> Action:
        """The action to agree to."""
        async with self._database.reading() as transaction:
            return await _waiting(transaction, node, action)

    async def answer(self, node: str, action: int, *, confirmed: bool, details: tuple[str, ...]) -> None:
        """Agree to an action, or not."""
        async with self._database.writing() as transaction:
            own = await _waiting(transaction, node, action)
            word = "confirmed" if confirmed else "denied"
            await self._tell(transaction, own, (f"{word} at the node", *details[:_MAX_DETAILS]), confirmed=confirmed)
            if confirmed:
                await actions.confirm(transaction, action)

    async def agree_beforehand(self, node: str, initiator: str, remark: str) -> None:
        """Agree to everything, from what waits now on."""
        async with self._database.writing() as transaction:
            await _registered(transaction, node)
            await nodes.set_auto_confirm(transaction, node, AutoConfirm(initiator, remark, self._now()))
            for action in await actions.unfinished(transaction, node):
                if action.state is ActionState.WAITING:
                    await self._tell(
                        transaction, action, (f"confirmed beforehand by {initiator or 'the node'}", remark), confirmed=True
                    )
                    await actions.confirm(transaction, action.id)

    async def ask_again(self, node: str) -> None:
        """From now on every action waits again."""
        async with self._database.writing() as transaction:
            await _registered(transaction, node)
            await nodes.set_auto_confirm(transaction, node, None)

    async def _tell(self, transaction: Transaction, action: Action, details: tuple[str, ...], *, confirmed: bool) -> None:
        record = ReportRecord(
            action=action.id,
            node=action.node,
            report=str(uuid.uuid4()),
            sequence=0,
            received=self._now(),
            execution=Execution.PROCEEDING,
            finished=Finished.NONE,
            details=tuple(filter(None, details)),
            body=None,
        )
        await reports.add(transaction, record)
        await self._telling.answered(transaction, action, confirmed=confirmed, details=record.details)


async def _registered(transaction: Transaction, node: str) -> Node:
    known = await nodes.find(transaction, node)
    if known is None:
        raise NotFoundError(f"no node {node} has been here")
    return known


async def _waiting(transaction: Transaction, node: str, action: int) -> Action:
    found = await actions.find(transaction, action)
    if found is None:
        raise NotFoundError(f"there is no action {action}")
    if found.node != node:
        raise ForbiddenError(f"action {action} is not one of node {node}")
    if found.state is not ActionState.WAITING:
        raise NotFoundError(f"action {action} of node {node} is {found.state} and waits for no confirmation; poll again")
    return found
