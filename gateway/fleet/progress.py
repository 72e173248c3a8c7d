"""What becomes of actions: what a node is told at its contact, and what its answers mean.

A node is told of one action at a time, the oldest that is not closed: first to let go of it where it is being cancelled, else
to install it. So a superseded action is always settled before its successor is offered. Every well-formed feedback of a node
about its own action is kept, once per report id, also when the action is closed already; what is closed stays closed.
What a feedback means, `gateway.fleet.judgement` says. What a node installed and did not prove stays open until it is observed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import assert_never

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, contacts, nodes, reports
from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, End, Node, ReportRecord, Running
from gateway.fleet.booking import book
from gateway.fleet.fitness import hardware_of
from gateway.fleet.judgement import (
    NOTHING,
    Judgement,
    Told,
    is_said_at_start,
    judge,
    judge_cancel,
    observe,
    runs_in_circles,
    stage_of,
    tells_late,
)
from gateway.fleet.presence import Presence
from gateway.fleet.telling import NOBODY, Telling
from update.digest import Digest
from update.errors import ForbiddenError, NotFoundError, ProtocolError
from update.wire.attributes import read_facts, without_facts
from update.wire.ddi import Execution, Mode

MAX_ATTRIBUTES = 100
"""hawkBit's own quota for a target."""
MAX_REPORTS = 1000
"""hawkBit's own quota for an action."""

_LOG = logging.getLogger(__name__)
_NEVER_HERE = "no node {node} has been here"


@dataclass(frozen=True, slots=True)
class Contact:
    """A node at its poll: `action` is what it is to be told of, if anything; `installed` is its last successful action."""

    node: Node
    action: Action | None
    installed: int | None = None


class Progress:
    """Talks with nodes about their actions. Errors: `ForbiddenError` for another node's, `NotFoundError` for none."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], telling: Telling = NOBODY, presence: Presence | None = None
    ) -> None:
        self._database = database
        self._now = now
        self._telling = telling
        self._presence = presence or Presence(database, now)

    async def contact(self, node: str, fingerprint: Digest, kind: ClientKind = ClientKind.AGENT) -> Contact:
        """A node is here: it is registered (as of `kind`) if it is new, for whoever issued its certificate admitted it.

        Who it is, and by which certificate, is durable before this returns; when it was here, `presence` keeps.
        """
        found = await self._look(node)
        if found is None or found.node.fingerprint != fingerprint:
            async with self._database.writing() as transaction:
                await self._known(transaction, node, fingerprint, kind)
            found = await self.standing(node)
        return replace(found, node=replace(found.node, last_seen=self._presence.note(node)))

    async def standing(self, node: str) -> Contact:
        """The same without being a contact."""
        if (found := await self._look(node)) is None:
            raise NotFoundError(_NEVER_HERE.format(node=node))
        return found

    async def describe(self, node: str, fingerprint: Digest, mode: Mode, data: Mapping[str, str]) -> None:
        """Take what a node says of itself; `ProtocolError` if it is malformed, or too much together with what it said before.

        What a stock client was found to run stands: it never says. Who says what is known already costs no writing: after a
        power failure a whole plant does.
        """
        if await self._is_known(node, fingerprint, mode, data):
            return
        async with self._database.writing() as transaction:
            known = await self._known(transaction, node, fingerprint, ClientKind.AGENT)
            attributes = _changed(known.attributes, mode, data)
            facts, before = read_facts(attributes), read_facts(known.attributes)
            silent = not any((facts.version, facts.sha256, facts.slot, before.version, before.sha256, before.slot))
            running = known.running if silent else Running(facts.version, facts.sha256 or "", facts.slot)
            hardware = facts.hardware or hardware_of(attributes)
            await nodes.describe(transaction, node, attributes=attributes, hardware=hardware, running=running)

    async def offer(self, node: str, action: int) -> Action:
        """The action to install; from now on the node may have begun it.

        That is written once: a client asks again at every poll until it is done. Which boot the node is in counts from then on:
        what was known of it before may be of long ago.
        """
        first = (await self.standing(node)).action
        if first is not None and _is_to_install(first, action) and first.offered is not None:
            return first
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            if not any(_is_to_install(each, action) for each in (await actions.unfinished(transaction, node))[:1]):
                raise NotFoundError(f"action {action} of node {node} is {own.state}, and not the one to install now; poll again")
            await actions.mark_offered(transaction, action, now=self._now())
            if own.offered is None:
                await nodes.booted(transaction, node, "")
            return own

    async def offered_action(self, node: str, action: int) -> tuple[Node, Action]:
        """An action that the node was told of; `NotFoundError` for one that it could not know."""
        async with self._database.reading() as transaction:
            own = await _own(transaction, node, action)
            known = await _registered(transaction, node)
        if own.offered is None:
            raise NotFoundError(f"action {action} of node {node} was not offered yet; ask for its deployment first")
        return known, own

    async def installed_action(self, node: str, action: int) -> tuple[Node, Action]:
        """An action that ended well; `NotFoundError` for one that has not."""
        async with self._database.reading() as transaction:
            own = await _own(transaction, node, action)
            known = await _registered(transaction, node)
        if own.end is None or own.end.outcome is not ActionOutcome.SUCCESS:
            raise NotFoundError(f"action {action} of node {node} has not been installed")
        return known, own

    async def installed_elsewhere(self, node: str, name: str, version: str) -> None:
        """A node says that it runs what nobody here had ordered: it came by hand. Whoever assigns for the node is told."""
        async with self._database.writing() as transaction:
            known = await _registered(transaction, node)
            await nodes.runs(transaction, node, version)
            await self._telling.installed(transaction, known, name, version)

    async def history(self, action: int, most: int) -> tuple[str, ...]:
        """What was said about an action, line by line, newest first."""
        async with self._database.reading() as transaction:
            kept = await reports.newest(transaction, action, most)
        lines = [line for report in kept for line in reversed(report.details)]
        return tuple(lines[:most])

    async def cancellation(self, node: str, action: int) -> Action:
        """The action to let go of."""
        async with self._database.reading() as transaction:
            own = await _own(transaction, node, action)
        if own.state is not ActionState.CANCELLING:
            raise NotFoundError(f"action {action} of node {node} is {own.state} and not being cancelled; poll again")
        return own

    async def feedback(self, node: str, action: int, told: Told) -> None:
        """Keep what a node says about an action, and book what it means."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            known = await _registered(transaction, node)
            judgement = judge(known.kind, _about(told, own), own.terms.handling)
            if is_said_at_start(known.kind, told) and not await _was_begun(transaction, action):
                _LOG.warning("node %s says of action %s, which it has not begun: %s", node, action, told.words[:80])
                judgement = NOTHING
            if (stage := stage_of(own, told)) is not None:  # also when it is said again: it is true now
                await actions.mark_stage(transaction, action, stage, now=self._now())
            if not await self._keep(transaction, own, told, judgement):
                return
            if own.installed is not None and runs_in_circles(known.kind, await _said(transaction, action), told):
                _LOG.warning("node %s begins action %s once more: it is told to stop", node, action)
                await actions.mark_cancelling(transaction, action, superseded_by=None)
            await self._book(transaction, own, known, judgement, told)

    async def cancel_feedback(self, node: str, action: int, told: Told) -> None:
        """Keep what a node says about a cancellation; one that it rejects lets the action run to its own end."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            known = await _registered(transaction, node)
            judgement = Judgement(outcome=judge_cancel(told), code=told.code, message=told.words)
            if not await self._keep(transaction, own, told, judgement):
                return
            if told.execution is Execution.REJECTED:
                await actions.reopen(transaction, action)
            else:
                await self._book(transaction, own, known, judgement, told)

    async def observe(self, node: str, version: str, boot_id: str) -> None:
        """A node was seen running `version` in this boot (empty: unknown), by something that it cannot have misconfigured.

        A node that was installed in a boot that nobody knew is still in it while it is seen with another version. Of a client
        that tells late, another version says nothing before it has told.
        """
        async with self._database.writing() as transaction:
            known = await _registered(transaction, node)
            if boot_id and boot_id != known.boot_id:
                await nodes.booted(transaction, node, boot_id)
            if version and version != known.running.version:
                await nodes.runs(transaction, node, version)
            for action in await actions.unfinished(transaction, node):
                waits = tells_late(known.kind) and action.offered is not None and action.installed is None
                other = bool(version) and version != action.release.version
                if other and (waits or action.installed is not None):
                    await actions.mark_boot(transaction, action.id, boot_id)
                judgement = NOTHING if other and waits else observe(action, version, boot_id)
                await book(transaction, self._telling, action, judgement, boot_id=boot_id, now=self._now())

    async def begins(self, node: str, action: int, boot_id: str) -> None:
        """A client that reports nothing was seen to begin what it was offered, in this boot."""
        async with self._database.writing() as transaction:
            own = await _own(transaction, node, action)
            await actions.mark_boot(transaction, own.id, boot_id)

    async def refuse(self, action: Action, code: str, message: str) -> None:
        """End what the node would not take, before it is told of it."""
        async with self._database.writing() as transaction:
            now = await actions.find(transaction, action.id)
            if now is not None and now.offered is None:
                await self._telling.close(transaction, now, End(self._now(), ActionOutcome.REFUSED, code, message))

    async def _is_known(self, node: str, fingerprint: Digest, mode: Mode, data: Mapping[str, str]) -> bool:
        found = await self._look(node)
        if found is None or found.node.fingerprint != fingerprint or found.node.attributes_wanted:
            return False
        self._presence.note(node)
        return _changed(found.node.attributes, mode, data) == found.node.attributes

    async def _look(self, node: str) -> Contact | None:
        found = await self._database.look(partial(contacts.standing, node=node))
        return None if found is None else Contact(*found)

    async def _book(self, transaction: Transaction, own: Action, node: Node, judgement: Judgement, told: Told) -> None:
        boot_id = (own.boot_id if tells_late(node.kind) else "") or node.boot_id
        await book(transaction, self._telling, own, judgement, boot_id=boot_id, now=self._now(), body=told.body)

    async def _keep(self, transaction: Transaction, action: Action, told: Told, judgement: Judgement) -> bool:
        """Keep a report once; beyond the quota only what ends the action is kept, so that no node can fill the disk.

        The rest is passed on to whoever assigned the action, who has a quota of his own and says what he leaves out.
        """
        ends = judgement.outcome is not None and action.state is not ActionState.CLOSED
        record = self._record(action, told)
        if not ends and await reports.count(transaction, action.id) >= MAX_REPORTS:
            _LOG.warning("node %s said more than %s things about action %s", action.node, MAX_REPORTS, action.id)
            await self._telling.said(transaction, action, record)
            return False
        if not await reports.add(transaction, record):
            return False
        await self._telling.said(transaction, action, record)
        return True

    async def _known(self, transaction: Transaction, node: str, fingerprint: Digest, kind: ClientKind) -> Node:
        now = self._now()
        known = await nodes.find(transaction, node)
        if known is None:
            return await nodes.register(transaction, node, kind=kind, fingerprint=fingerprint, now=now)
        await nodes.seen(transaction, node, fingerprint=fingerprint, now=now)
        return replace(known, fingerprint=fingerprint, last_seen=now)

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


async def _was_begun(transaction: Transaction, action: int) -> bool:
    said = await reports.newest(transaction, action, MAX_REPORTS)
    return any(report.execution == Execution.PROCEEDING for report in said)


async def _said(transaction: Transaction, action: int) -> list[tuple[str, ...]]:
    return [report.details for report in await reports.newest(transaction, action, MAX_REPORTS)]


def _about(told: Told, action: Action) -> Told:
    """What was told, proved only if the proof is about this very order."""
    body = told.body or {}
    said = (body.get("version", action.release.version), body.get("fence", action.fence))
    return told if said == (action.release.version, action.fence) else replace(told, proven=False)


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


def _is_to_install(first: Action, asked: int) -> bool:
    """Whether the action that is asked for is the oldest one, and may be installed."""
    return first.id == asked and first.state is ActionState.OPEN


async def _own(transaction: Transaction, node: str, action: int) -> Action:
    found = await actions.find(transaction, action)
    if found is None:
        raise NotFoundError(f"there is no action {action}")
    if found.node != node:
        raise ForbiddenError(f"action {action} is not one of node {node}")
    return found


async def _registered(transaction: Transaction, node: str) -> Node:
    found = await nodes.find(transaction, node)
    if found is None:
        raise NotFoundError(_NEVER_HERE.format(node=node))
    return found
