"""Where a job of a device artifact update (DAU) stands, and which step leads on; pure decisions on the server's own graph.

The words are those of `wfx.workflow.dau.direct` and `.phased`; the graph comes with each job, so that a company's own workflow
with the same words can be followed. A step of ours is a transition whose `eligible` is CLIENT. Those that are WFX's are waited
for; the immediate ones among them the server takes in the same moment.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from gateway.north.wfx.messages import Eligible, Transition, Workflow


class State(StrEnum):
    """The states of both DAU workflows."""

    CREATED = "CREATED"
    DOWNLOAD = "DOWNLOAD"
    DOWNLOADING = "DOWNLOADING"
    DOWNLOADED = "DOWNLOADED"
    INSTALL = "INSTALL"
    INSTALLING = "INSTALLING"
    INSTALLED = "INSTALLED"
    ACTIVATE = "ACTIVATE"
    ACTIVATING = "ACTIVATING"
    ACTIVATED = "ACTIVATED"
    TERMINATED = "TERMINATED"


class Phase(StrEnum):
    """What a job allows: only to fetch, nothing until the server goes on, or to install; or it has ended."""

    BEFORE = "before"
    DOWNLOAD = "download"
    WAIT = "wait"
    INSTALL = "install"
    OVER = "over"


_PHASES: dict[str, Phase] = {
    State.CREATED: Phase.BEFORE,
    State.DOWNLOAD: Phase.DOWNLOAD,
    State.DOWNLOADING: Phase.DOWNLOAD,
    State.DOWNLOADED: Phase.WAIT,
    State.INSTALL: Phase.INSTALL,
    State.INSTALLING: Phase.INSTALL,
    State.INSTALLED: Phase.INSTALL,
    State.ACTIVATE: Phase.INSTALL,
    State.ACTIVATING: Phase.INSTALL,
    State.ACTIVATED: Phase.OVER,
    State.TERMINATED: Phase.OVER,
}


_WORKING = frozenset({State.DOWNLOAD, State.DOWNLOADING, State.INSTALL, State.INSTALLING, State.ACTIVATE, State.ACTIVATING})


class Turn(StrEnum):
    """Whose step is the next on the way to a state; or it was reached, or can be reached no more."""

    OURS = "ours"
    THEIRS = "theirs"
    THERE = "there"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Move:
    """The next step: `state` is where to, if it is ours."""

    turn: Turn
    state: str = ""


def phase_of(state: str) -> Phase | None:
    """What a job in this state allows; None for a state that is no word of DAU."""
    return _PHASES.get(state)


def next_move(workflow: Workflow, state: str, goal: str) -> Move:
    """The first step of the shortest way from `state` to `goal`."""
    if state == goal:
        return Move(Turn.THERE)
    way = _way(workflow.transitions, state, goal)
    if way is None:
        return Move(Turn.PASSED)
    return Move(Turn.OURS, way.end) if way.eligible is Eligible.CLIENT else Move(Turn.THEIRS)


def can_be_followed(workflow: Workflow) -> bool:
    """Whether a client comes to success over the states that say what it did, and to failure from where it works, directly.

    Otherwise a failure would have to be told by way of a success that never was.
    """
    stages = (State.INSTALL, State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.ACTIVATED)
    steps = all(_way(workflow.transitions, *pair) is not None for pair in pairwise(stages))
    known = {each.start for each in workflow.transitions}
    fails = {each.start for each in workflow.transitions if (each.end, each.eligible) == (State.TERMINATED, Eligible.CLIENT)}
    return steps and known & _WORKING <= fails


def _way(transitions: Iterable[Transition], start: str, goal: str) -> Transition | None:
    """The first transition of a shortest way; None without one. What waits for nobody comes first."""
    leaving: dict[str, list[Transition]] = {}
    for each in transitions:
        if each.start != each.end:
            leaving.setdefault(each.start, []).append(each)
    queue = deque((each.end, each) for each in leaving.get(start, ()))
    seen = {start}
    while queue:
        state, first = queue.popleft()
        if state == goal:
            return first
        if state not in seen:
            seen.add(state)
            queue.extend((each.end, first) for each in leaving.get(state, ()))
    return None
