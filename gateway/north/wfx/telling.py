"""What a wfx server is told of a job: a state of its workflow with progress and words, each stored before it is sent.

Stored is where the job shall come to; which steps lead there is found when it is sent (`delivery`). What a node says under way is
gathered: the newest words replace those that were not yet sent, since a status holds one message.

| here | wfx |
|---|---|
| the gateway fetches the bundle of a phased job | DOWNLOADING |
| it is fetched, proved, and fit for this node | DOWNLOADED |
| the node says something | INSTALLING, or ACTIVATING once it has installed |
| it has installed | INSTALLED |
| success | ACTIVATED |
| unverified | ACTIVATED or TERMINATED as configured, and the words that nobody could verify it: wfx knows no third end |
| superseded, timed out, refused, cancelled here, any failure | TERMINATED, with code and reason |

An action that ends because its job asks for something else now ends nothing there: what the job asks for now will.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from gateway.database.engine import Transaction
from gateway.database.queries import actions, outgoing
from gateway.database.records import Action, ActionOutcome, End, Matter, Node, Outgoing, ReportRecord
from gateway.north.wfx.meaning import job_of
from gateway.north.wfx.messages import LONGEST_MESSAGE, JobStatus
from gateway.north.wfx.workflow import State
from update.wire.ddi import Execution

MOST_MESSAGES: Final = 500
"""For one action: wfx keeps every status in the history of its job."""
GATHERED_S: Final = 5.0
_ENDS = frozenset({Execution.CLOSED, Execution.CANCELED, Execution.REJECTED})
_PERCENT = re.compile(r"\b(\d{1,3}) ?%")
_SAME = uuid.UUID("0f3b7f4e-8f0c-5d51-8a44-6f5b5d7f9a10")


class WfxTeller:
    """Stores what one server is to be told."""

    def __init__(self, upstream: str, now: Callable[[], datetime], *, unverified: State = State.ACTIVATED) -> None:
        self._upstream = upstream
        self._now = now
        self._unverified = unverified

    async def said(self, transaction: Transaction, action: Action, report: ReportRecord) -> None:
        """Gather what a node said; its last words come with the end, and those from before it may install with nothing."""
        words, progress = _words(report)
        if not words or report.execution in _ENDS or action.terms.opens is not None:
            return
        state = State.INSTALLING if action.installed is None else State.ACTIVATING
        body = body_of(state, words, progress)
        before = await outgoing.of_action(transaction, self._upstream, action.node, action.source)
        newest = before[-1] if before else None
        if newest is not None and _is_replaceable(newest, state):
            await outgoing.replace_body(transaction, newest.id, body)
        elif len(before) < MOST_MESSAGES:
            await self._add(transaction, action.node, action.source, report.report, body, gathered=True)

    async def written(self, transaction: Transaction, action: Action) -> None:
        """Tell that the node has installed."""
        body = body_of(State.INSTALLED, "", 100)
        await self._add(transaction, action.node, action.source, f"written {action.id}", body)

    async def ended(self, transaction: Transaction, action: Action, end: End) -> None:
        """Tell how it ended, once; unless the job goes on with something else."""
        if not await self._goes_on(transaction, action):
            await self._add(transaction, action.node, action.source, f"end {action.id}", self._end(end), final=True)

    async def answered(self, transaction: Transaction, action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        """Nothing: whether a job may run is asked at the server, not at the node."""

    async def installed(self, transaction: Transaction, node: Node, name: str, version: str) -> None:
        """Nothing: wfx knows jobs only."""

    async def reached(self, transaction: Transaction, node: str, source: str, state: State) -> None:
        """Tell how far the gateway itself is with a job; told once."""
        body = body_of(state, "", 100 if state is State.DOWNLOADED else 0)
        await self._add(transaction, node, source, f"reached {state}", body)

    async def concluded(self, transaction: Transaction, node: str, source: str, *, state: State, words: str) -> None:
        """Tell the end of what never became an action here: refused, or running already; told once."""
        progress = 100 if state is State.ACTIVATED else None
        await self._add(transaction, node, source, f"concluded {words}", body_of(state, words, progress), final=True)

    async def repeated(self, transaction: Transaction, node: str, source: str, body: Mapping[str, object]) -> None:
        """Tell an end once more: the server still shows as open what it was told to be closed."""
        await self._add(transaction, node, source, f"again {self._now().isoformat()}", body, final=True)

    def end_of(self, action: Action) -> dict[str, object] | None:
        """What says how an action ended; None while it has not."""
        return None if action.end is None else self._end(action.end)

    async def _goes_on(self, transaction: Transaction, action: Action) -> bool:
        job = job_of(action.source)
        others = await actions.unfinished(transaction, action.node)
        return any(each.id > action.id and each.assigner == action.assigner and job_of(each.source) == job for each in others)

    def _end(self, end: End) -> dict[str, object]:
        reason = f"{end.code}: {end.message}".removeprefix(": ").removesuffix(": ")
        match end.outcome:
            case ActionOutcome.SUCCESS:
                return body_of(State.ACTIVATED, reason, 100)
            case ActionOutcome.UNVERIFIED:
                words = f"outcome: {end.outcome}: {reason or 'installed; it could not be verified that it runs'}"
                return body_of(self._unverified, words, 100 if self._unverified is State.ACTIVATED else None)
            case _:
                return body_of(State.TERMINATED, f"outcome: {end.outcome}: {reason}".removesuffix(": "), None)

    async def _add(
        self,
        transaction: Transaction,
        node: str,
        source: str,
        report: str,
        body: Mapping[str, object],
        *,
        final: bool = False,
        gathered: bool = False,
    ) -> None:
        now = self._now()
        await outgoing.add(
            transaction,
            self._upstream,
            node,
            source=source,
            matter=Matter.FEEDBACK,
            final=final,
            report=str(uuid.uuid5(_SAME, f"{node}\x1f{source}\x1f{report}")),
            body=body,
            now=now,
            not_before=now + timedelta(seconds=GATHERED_S) if gathered else None,
        )


def body_of(state: State, words: str, progress: int | None) -> dict[str, object]:
    """A message as it is stored."""
    return {"state": state.value, "message": words[:LONGEST_MESSAGE], "progress": progress}


def status_of(body: Mapping[str, object]) -> JobStatus:
    """The status that a stored body stands for."""
    progress = body["progress"]
    return JobStatus(
        state=str(body["state"]), message=str(body["message"]), progress=progress if isinstance(progress, int) else None
    )


def _is_replaceable(message: Outgoing, state: State) -> bool:
    fresh = message.delivered is None and message.attempts == 0 and not message.final
    return fresh and message.body["state"] == state


def _words(report: ReportRecord) -> tuple[str, int | None]:
    """What a report says to people, and how far it is: the client's lines, or the state of our agent."""
    if report.details:
        text = "\n".join(report.details)
        found = _PERCENT.findall(text)
        return text, min(100, int(found[-1])) if found else None
    body = report.body or {}
    state, done, total = (body.get(name) for name in ("state", "done", "total"))
    if not isinstance(state, str) or not state:
        return "", None
    if isinstance(done, int) and isinstance(total, int) and 0 <= done <= total and total > 0:
        return f"{state[:32]} {done} of {total} bytes", done * 100 // total
    return state[:32], None
