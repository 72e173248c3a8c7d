"""What becomes of actions: what a node is told at its contact, and what its answers mean.

A node is told of one action at a time, the oldest that is not closed: first to let go of it where it is being cancelled, else
to install it. So a superseded action is always settled before its successor is offered. Every well-formed feedback of a node
about its own action is kept, once per report id, also when the action is closed already; what is closed stays closed.
A node that says nothing about success or failure (`closed` with `none`) has not ended anything: the action stays open
until a verified version tells.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, End, Node, ReportRecord, Running
from update.digest import Digest
from update.errors import ForbiddenError, NotFoundError, ProtocolError
from update.wire.attributes import MAX_SLOT_CHARACTERS, read_facts, without_facts
from update.wire.ddi import Execution, Finished, Mode

MAX_ATTRIBUTES = 100
"""hawkBit's own quota for a target."""
MAX_REPORTS = 1000
"""hawkBit's own quota for an action."""

_LOG = logging.getLogger(__name__)


_ENDS = {
    "cancelled": ActionOutcome.CANCELLED,
    "inconsistent": ActionOutcome.INCONSISTENT,
    "refused": ActionOutcome.REFUSED,
    "rolled-back": ActionOutcome.ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class Told:
    """A feedback in hawkBit's words, and what our own agent adds: `outcome`, `code`, `message` and the whole `body`.

    `report` identifies it among all of the node's reports.
    """

    report: str
    execution: Execution
    finished: Finished
    sequence: int = 0
    details: tuple[str, ...] = ()
    outcome: str = ""
    code: str = ""
    message: str = ""
    body: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """A node at its poll: `action` is what it is to be told of, if anything."""

    node: Node
    action: Action | None


def judge(told: Told) -> ActionOutcome | None:
    """The outcome that a feedback means; None while the action is under way, or when the node does not know.

    Where a node's two words contradict each other (success, but rolled back) the worse one counts.
    """
    if told.execution is Execution.CANCELED:
        return ActionOutcome.CANCELLED
    if told.execution is not Execution.CLOSED or told.finished is Finished.NONE:
        return None
    if told.finished is Finished.SUCCESS and told.outcome in {"", "confirmed"}:
        return ActionOutcome.SUCCESS
    return _ENDS.get(told.outcome, ActionOutcome.FAILURE)


def judge_cancel(told: Told) -> ActionOutcome | None:
    """The same for the answer to a cancellation (hawkBit DDI, `cancelAction` feedback)."""
    if told.execution is Execution.CLOSED and told.finished is Finished.FAILURE:
        return ActionOutcome.FAILURE
    return ActionOutcome.CANCELLED if told.execution is Execution.CLOSED else None


class Progress:
    """Talks with nodes about their actions. Errors: `ForbiddenError` for another node's, `NotFoundError` for none."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def contact(self, node: str, fingerprint: Digest, kind: ClientKind = ClientKind.AGENT) -> Contact:
        """A node is here: it is registered (as of `kind`) if it is new, for whoever issued its certificate admitted it."""
        async with self._database.writing() as transaction:
            known = await self._known(transaction, node, fingerprint, kind)
            return Contact(known, _first(await actions.unfinished(transaction, node)))

    async def describe(self, node: str, fingerprint: Digest, mode: Mode, data: Mapping[str, str]) -> None:
        """Take what a node says of itself; `ProtocolError` if it is malformed, or too much together with what it said before."""
        async with self._database.writing() as transaction:
            known = await self._known(transaction, node, fingerprint, ClientKind.AGENT)
            attributes = _changed(known.attributes, mode, data)
            facts = read_facts(attributes)
            running = Running(facts.version, facts.sha256 or "", facts.slot)
            await nodes.describe(transaction, node, attributes=attributes, hardware=facts.hardware, running=running)

    async def offer(self, node: str, action: int) -> Action:
        """The action to install; from now on the node may have begun it."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            first = _first(await actions.unfinished(transaction, node))
            if first is None or first.id != own.id or own.state is not ActionState.OPEN:
                raise NotFoundError(f"action {action} of node {node} is {own.state}, and not the one to install now; poll again")
            await actions.mark_offered(transaction, action, now=self._now())
            return own

    async def cancellation(self, node: str, action: int) -> Action:
        """The action to let go of."""
        async with self._database.reading() as transaction:
            own = await _own(transaction, node, action)
        if own.state is not ActionState.CANCELLING:
            raise NotFoundError(f"action {action} of node {node} is {own.state} and not being cancelled; poll again")
        return own

    async def feedback(self, node: str, action: int, told: Told) -> None:
        """Keep what a node says about an action, and book its end where it means one."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            outcome = judge(told)
            if await self._keep(transaction, own, told, outcome):
                await self._book(transaction, own, told, outcome)

    async def cancel_feedback(self, node: str, action: int, told: Told) -> None:
        """Keep what a node says about a cancellation; one that it rejects lets the action run to its own end."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            outcome = judge_cancel(told)
            if not await self._keep(transaction, own, told, outcome):
                return
            if told.execution is Execution.REJECTED:
                await actions.reopen(transaction, action)
            else:
                await self._book(transaction, own, told, outcome)

    async def _keep(self, transaction: Transaction, action: Action, told: Told, outcome: ActionOutcome | None) -> bool:
        """Keep a report once; beyond the quota only what ends the action is kept, so that no node can fill the disk."""
        ends = outcome is not None and action.state is not ActionState.CLOSED
        if not ends and await reports.count(transaction, action.id) >= MAX_REPORTS:
            _LOG.warning("node %s said more than %s things about action %s", action.node, MAX_REPORTS, action.id)
            return False
        return await reports.add(transaction, self._record(action, told))

    async def _known(self, transaction: Transaction, node: str, fingerprint: Digest, kind: ClientKind) -> Node:
        now = self._now()
        known = await nodes.find(transaction, node)
        if known is None:
            return await nodes.register(transaction, node, kind=kind, fingerprint=fingerprint, now=now)
        await nodes.seen(transaction, node, fingerprint=fingerprint, now=now)
        return replace(known, fingerprint=fingerprint, last_seen=now)

    async def _book(self, transaction: Transaction, action: Action, told: Told, outcome: ActionOutcome | None) -> None:
        if outcome is None or action.state is ActionState.CLOSED:
            return
        if outcome is ActionOutcome.CANCELLED and action.superseded_by is not None:
            outcome = ActionOutcome.SUPERSEDED
        message = told.message or (told.details[-1] if told.details else "")
        await actions.close(transaction, action.id, End(self._now(), outcome, told.code, message))
        if outcome is ActionOutcome.SUCCESS:
            slot = str((told.body or {}).get("slot", ""))[:MAX_SLOT_CHARACTERS]
            await nodes.ran(transaction, action.node, action.release, slot=slot)
        else:
            await nodes.ask_attributes(transaction, action.node)

    def _record(self, action: Action, told: Told) -> ReportRecord:
        return ReportRecord(
            action=action.id,
            node=action.node,
            report=told.report,
            sequence=told.sequence,
            received=self._now(),
            execution=told.execution,
            finished=told.finished,
            details=told.details,
            body=told.body,
        )


def _changed(old: Mapping[str, str], mode: Mode, data: Mapping[str, str]) -> dict[str, str]:
    match mode:
        case Mode.MERGE:
            new = {**(without_facts(old) if without_facts(data) != data else old), **data}
        case Mode.REPLACE:
            new = dict(data)
        case Mode.REMOVE:
            new = {name: value for name, value in old.items() if name not in data}
        case _:
            assert_never(mode)
    if len(new) > MAX_ATTRIBUTES:
        raise ProtocolError(f"a node may have {MAX_ATTRIBUTES} attributes, these would be {len(new)}; remove some first")
    return new


def _first(unfinished: Sequence[Action]) -> Action | None:
    return unfinished[0] if unfinished else None


async def _own(transaction: Transaction, node: str, action: int) -> Action:
    found = await actions.find(transaction, action)
    if found is None:
        raise NotFoundError(f"there is no action {action}")
    if found.node != node:
        raise ForbiddenError(f"action {action} is not one of node {node}")
    return found
