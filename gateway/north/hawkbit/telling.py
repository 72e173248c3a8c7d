"""What a hawkBit server is told of an action: few messages, each stored before it is sent, the last one saying how it ended.

hawkBit takes 1,000 entries for an action and 50 lines in each (`HawkbitSecurityProperties.Dos`); stock clients say more than
that. So what a node says is gathered for a while into one message, as long as that one was never sent; the last message before
the end waits for it, and says how much was left out (`gathering`). Nothing but the end says `closed`.

| how it ended here | what hawkBit is told |
|---|---|
| success | closed, success |
| downloaded (download-only) | downloaded, success |
| unverified | closed, success or failure as configured, and the words that nobody could verify it: hawkBit knows no third end |
| cancelled, because hawkBit wanted it | the cancellation is done |
| superseded, timed out, refused, rolled back, any failure | closed, failure, with code and reason |
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from gateway.database.engine import Transaction
from gateway.database.queries import outgoing
from gateway.database.records import Action, ActionOutcome, End, Matter, Node, Outgoing, ReportRecord
from gateway.north.hawkbit.gathering import MOST_LINES, as_told, batches, is_kept_back, kept_back, pieces
from update.wire import ddi
from update.wire.ddi_confirmation import Answer, ConfirmationFeedback, Installed

MOST_MESSAGES: Final = 450
"""Of an action, but for what is said at its end; half of the quota, since one whose answer is lost is sent again."""
GATHERED_S: Final = 5.0
_UNTIL_THE_END: Final = timedelta(days=36500)
_MOST_RESTS = 20
_SAME = uuid.UUID("6b3f0a0e-1c52-5c9a-9c39-51a6d0a7f2d4")


class HawkbitTeller:
    """Stores what one server is to be told."""

    def __init__(self, upstream: str, now: Callable[[], datetime], *, unverified: ddi.Finished = ddi.Finished.SUCCESS) -> None:
        self._upstream = upstream
        self._now = now
        self._unverified = unverified

    async def said(self, transaction: Transaction, action: Action, report: ReportRecord) -> None:
        """Gather what a node said."""
        if not (lines := pieces(_lines(report))):
            return
        before = await outgoing.of_action(transaction, self._upstream, action.node, action.source)
        newest = before[-1] if before else None
        held = _details(newest.body) if newest is not None and _takes_more(newest) else None
        first, *others = batches(lines, 0 if held is None else MOST_LINES - len(held))
        if newest is not None and held is not None and first:
            body = {**newest.body, "details": [*held, *first]}
            if not await outgoing.replace_body(transaction, newest.id, body):  # its sending began this moment
                others = batches(lines, 0)[1:]
        for number, each in enumerate(others):
            if len(before) + number >= MOST_MESSAGES - 1:
                rest = [line for batch in others[number:] for line in batch]
                await self._keep_back(transaction, action, report, before, rest)
                return
            await self._add(transaction, action, f"{report.report} {number}", _going(each), wait=timedelta(seconds=GATHERED_S))

    async def written(self, transaction: Transaction, action: Action) -> None:
        """Nothing: DDI has no word for it, and what the node said is told already."""

    async def ended(self, transaction: Transaction, action: Action, end: End) -> None:
        """Tell how it ended, once."""
        cancelled = end.outcome is ActionOutcome.CANCELLED
        matter = Matter.CANCEL_FEEDBACK if cancelled else Matter.FEEDBACK
        await self._add(transaction, action, f"end {action.id}", self._end(end), matter=matter, final=True)

    async def answered(self, transaction: Transaction, action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        """Tell that somebody at the node agreed, or did not."""
        word = Answer.CONFIRMED if confirmed else Answer.DENIED
        said = ConfirmationFeedback(confirmation=word, details=tuple(pieces(details)[:MOST_LINES]))
        report, body = f"answer {action.id} {word} {self._now().isoformat()}", said.model_dump(mode="json", exclude_none=True)
        await self._add(transaction, action, report, body, matter=Matter.CONFIRMATION)

    async def installed(self, transaction: Transaction, node: Node, name: str, version: str) -> None:
        """Tell what came to a node by hand."""
        body = Installed(name=name[:128], version=version[:64]).model_dump(mode="json")
        await outgoing.add(
            transaction,
            self._upstream,
            node.id,
            source="",
            matter=Matter.INSTALLED,
            final=False,
            report=_report(node.id, "installed", name, version, self._now().isoformat()),
            body=body,
            now=self._now(),
        )

    async def concluded(
        self, transaction: Transaction, node: str, source: str, finished: ddi.Finished, words: str, *, cancel: bool = False
    ) -> bool:
        """Tell the end of what never became an action here: refused, running already, or cancelled; False if told before."""
        return await outgoing.add(
            transaction,
            self._upstream,
            node,
            source=source,
            matter=Matter.CANCEL_FEEDBACK if cancel else Matter.FEEDBACK,
            final=True,
            report=_report(node, source, "concluded", words),
            body=closed(finished, (words,)),
            now=self._now(),
        )

    async def repeated(self, transaction: Transaction, action: Action, end: End) -> None:
        """Tell the end once more: the server still shows as open what it was told to be closed."""
        await self._add(transaction, action, f"again {action.id} {self._now().isoformat()}", self._end(end), final=True)

    async def _keep_back(
        self, transaction: Transaction, action: Action, report: ReportRecord, before: Sequence[Outgoing], lines: Sequence[str]
    ) -> None:
        """Hold what is too much for messages of its own until the action ends."""
        rest = next((each for each in before if is_kept_back(each.body) and _is_fresh(each)), None)
        if rest is not None and await outgoing.replace_body(
            transaction, rest.id, kept_back(rest.body, _details(rest.body), lines)
        ):
            return
        if len(before) < MOST_MESSAGES + _MOST_RESTS:
            body = kept_back(_going(()), (), lines)
            await self._add(transaction, action, f"{report.report} rest", body, wait=_UNTIL_THE_END)

    def _end(self, end: End) -> dict[str, object]:
        words = tuple(filter(None, (f"{end.code}: {end.message}".removeprefix(": "), f"outcome: {end.outcome}")))
        match end.outcome:
            case ActionOutcome.DOWNLOADED:
                return _body(ddi.Execution.DOWNLOADED, ddi.Finished.SUCCESS, words)
            case ActionOutcome.SUCCESS | ActionOutcome.CANCELLED:
                return closed(ddi.Finished.SUCCESS, words)
            case ActionOutcome.UNVERIFIED:
                return closed(self._unverified, words)
            case _:
                return closed(ddi.Finished.FAILURE, words)

    async def _add(
        self,
        transaction: Transaction,
        action: Action,
        report: str,
        body: Mapping[str, object],
        *,
        matter: Matter = Matter.FEEDBACK,
        final: bool = False,
        wait: timedelta | None = None,
    ) -> None:
        now = self._now()
        await outgoing.add(
            transaction,
            self._upstream,
            action.node,
            source=action.source,
            matter=matter,
            final=final,
            report=_report(action.node, action.source, report),
            body=body,
            now=now,
            not_before=None if wait is None else now + wait,
        )


def closed(finished: ddi.Finished, details: Sequence[str]) -> dict[str, object]:
    """The body of a last word."""
    return _body(ddi.Execution.CLOSED, finished, details)


def feedback_of(body: Mapping[str, object]) -> ddi.Feedback:
    """The DDI message of a stored body."""
    status = ddi.Status(
        execution=ddi.Execution(str(body["execution"])),
        result=ddi.Result(finished=ddi.Finished(str(body["finished"]))),
        details=tuple(as_told(body, _details(body))),
    )
    return ddi.Feedback(status=status)


def _report(*parts: str) -> str:
    """An id that is the same whenever the same is told."""
    return str(uuid.uuid5(_SAME, "\x1f".join(parts)))


def _going(lines: Sequence[str]) -> dict[str, object]:
    return _body(ddi.Execution.PROCEEDING, ddi.Finished.NONE, lines)


def _body(execution: ddi.Execution, finished: ddi.Finished, details: Sequence[str]) -> dict[str, object]:
    return {"execution": execution, "finished": finished, "details": pieces(details)[:MOST_LINES]}


def _details(body: Mapping[str, object]) -> list[str]:
    details = body.get("details")
    return [str(line) for line in details] if isinstance(details, list) else []


def _is_fresh(message: Outgoing) -> bool:
    fresh = message.delivered is None and message.attempts == 0
    return fresh and not message.final and message.matter is Matter.FEEDBACK


def _takes_more(message: Outgoing) -> bool:
    return _is_fresh(message) and not is_kept_back(message.body)


def _lines(report: ReportRecord) -> list[str]:
    """What a report says to people: the client's lines, or the state of our agent."""
    if report.details:
        return list(report.details)
    body = report.body or {}
    state, done, total = (body.get(name) for name in ("state", "done", "total"))
    if not isinstance(state, str) or not state:
        return []
    return [f"{state[:32]} {done} of {total} bytes" if done and total else state[:32]]
