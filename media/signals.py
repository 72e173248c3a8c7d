"""One state of a medium for everybody who looks: LED, beeper, console, page, journal and status say the same.

What the reader of the medium says and what the gateway says are merged here, and nowhere else. The order of what people see:
found -> checking -> copying n % -> safe to remove -> updating k/n -> done | failed CODE. "Safe to remove" is a fact of its own
(`Signal.removable`): it stays true while nodes are updated, since nothing reads the medium any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from media.records import Answer, Course, MediumState, Stage


class Show(StrEnum):
    """What is shown of one medium; each has its words (`media.words`) and its light."""

    FOUND = "found"
    CHECKING = "checking"
    COPYING = "copying"
    SAFE = "safe"
    UPDATING = "updating"
    DONE = "done"
    NOTHING_NEW = "nothing-new"
    IGNORED = "ignored"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Signal:
    """What is shown: `done` of `total` are bytes while copying, nodes while updating. `since`: seconds since the epoch."""

    show: Show
    label: str
    removable: bool
    since: int
    done: int = 0
    total: int = 0
    code: str = ""
    message: str = ""

    @property
    def percent(self) -> int:
        """How far it is, 0 to 100; 0 where there is nothing to count. It says 100 only when all is done."""
        return 100 * self.done // self.total if self.total else 0


def foremost(signals: Iterable[Signal]) -> Signal | None:
    """Of several media, the one that a single light is about: what must stay plugged in, then what failed, then the newest."""
    return max(signals, key=lambda each: (not each.removable, each.show is Show.FAILED, each.since), default=None)


_BUSY = frozenset({Stage.FOUND, Stage.CHECKING, Stage.COPYING})
_BEFORE = {Stage.FOUND: Show.FOUND, Stage.CHECKING: Show.CHECKING, Stage.COPYING: Show.COPYING}
_ENDS = {Stage.NOTHING_NEW: Show.NOTHING_NEW, Stage.IGNORED: Show.IGNORED, Stage.FAILED: Show.FAILED}
_COURSES = {Course.UPDATING: Show.UPDATING, Course.DONE: Show.DONE, Course.FAILED: Show.FAILED}


def signal_of(state: MediumState, answer: Answer | None) -> Signal | None:
    """What to show; None for a medium that is gone and left nothing to tell.

    While it is read, only its reader counts: an answer is then about what it held when it was here before. "Safe to remove" lasts
    until it is removed, or until the first node has ended: who stands there must have the time to read it.
    """
    if state.stage in _BUSY:
        return Signal(
            _BEFORE[state.stage], state.label, removable=False, since=state.since, done=state.done_bytes, total=state.total_bytes
        )
    if state.stage in _ENDS and (answer is None or state.stage is not Stage.NOTHING_NEW or answer.course is not Course.UPDATING):
        return Signal(_ENDS[state.stage], state.label, removable=True, since=state.since, code=state.code, message=state.message)
    waiting = state.stage is Stage.SAFE and answer is not None and answer.course is Course.UPDATING and not answer.done
    if answer is None or answer.course is Course.ADOPTING or waiting:
        return None if state.stage is Stage.GONE and answer is None else Signal(Show.SAFE, state.label, True, state.since)
    return Signal(
        _COURSES[answer.course], state.label, True, answer.since, answer.done, answer.total, answer.code, answer.message
    )
