"""What the assigner is told of an update, by one queue on disk: how it ended, and where it is and why it stays there.

Every state is told once when it is entered, and again when there is something else to say about it: an assigner keeps a
limited number of reports for each action, and an update may wait for days.
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from node_agent.decisions import report_of
from node_agent.record import MAX_MESSAGE_CHARACTERS, Entry
from node_agent.reports import Reports, report_id
from node_agent.source import Source
from update.errors import LostDecisionError, WireError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """Why a state lasts; empty: nothing to say. It is told once, and again when it changes. Lost in a restart, and found anew."""

    code: str = ""
    message: str = ""


NOTHING = Note()


def kept_on_trial(entry: Entry) -> Note:
    """What is said of a trial whose time is over and which was ordered to be kept."""
    message = f"no word from the assigner for {entry.hold_s} s; kept on trial, as was ordered"
    return Note(LostDecisionError.code, message)


class Telling:
    """The reports of one agent; `node` names it in their ids. A delivery takes at most `tell_s` seconds."""

    def __init__(self, node: str, reports: Reports, source: Source, tell_s: float) -> None:
        self._node = node
        self._reports = reports
        self._source = source
        self._tell_s = tell_s
        self._moved = (0, 0)
        self.note = NOTHING
        self._said = ""

    def entered(self) -> None:
        """A state begins: no byte has moved in it."""
        self._moved = (0, 0)

    def moved(self, done: int, total: int) -> None:
        """How far the state is, in bytes."""
        self._moved = (done, total)

    def progress(self, entry: Entry) -> None:
        """Queue where the update is."""
        done, total = self._moved
        said = (self.note.code, self.note.message) if self.note.message else ()
        name = report_id(self._node, entry.action, entry.fence, entry.state, entry.tries, done, *said)
        report = replace(report_of(entry, name), done=done, total=total)
        self._reports.add(replace(report, code=self.note.code, message=self._said) if said else report)

    def remark(self, entry: Entry, note: Note, words: str = "") -> None:
        """Say once why the state lasts, in these `words`, which may differ each time; without any, in those of the note."""
        if note == self.note:
            return
        self.note, self._said = note, (words or note.message)[:MAX_MESSAGE_CHARACTERS]
        _LOG.warning("%s of action %s: %s (%s)", entry.state, entry.action, self._said, note.code)
        self.progress(entry)

    def result(self, entry: Entry) -> None:
        """Queue the result of an action, under the same id however often."""
        name = report_id(self._node, entry.action, entry.fence, "result", entry.cancel)
        self._reports.add(replace(report_of(entry, name), outcome=entry.outcome, answers=entry.cancel))

    async def deliver(self) -> None:
        """Deliver what waits; what cannot be delivered now stays."""
        try:
            async with asyncio.timeout(self._tell_s):
                await self._reports.deliver(self._source.report)
        except WireError as error:
            _LOG.info("%s reports wait for the assigner: %s", len(self._reports.waiting), error)
        except TimeoutError:
            _LOG.info("%s reports wait for the assigner: no answer within %g s", len(self._reports.waiting), self._tell_s)
