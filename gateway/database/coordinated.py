"""What the gateway remembers of coordinated releases, as pure values: the run, its members, and how far each of them is.

A *course* is what the coordinator has told a member, journaled with the telling; where the member is, its action says. Both
together decide what follows (`gateway.fleet.coordination`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.database.records import Release
from update.plans.plan import Deadlines, Lost

_USUAL = Deadlines()


class Phase(StrEnum):
    """Where a coordinated release is."""

    PREPARING = "preparing"  # everybody fetches and writes
    ACTIVATING = "activating"  # step by step, everybody tries the new version and holds it
    PROBING = "probing"  # everybody is heard once more
    COMMITTING = "committing"  # the decision has fallen: step by step, the new version becomes permanent
    REVERTING = "reverting"  # the decision has fallen: in descending order, everybody goes back
    ENDED = "ended"


class Decision(StrEnum):
    """The one decision for everybody; it never changes."""

    NONE = ""
    COMMIT = "commit"
    REVERT = "revert"


class Ending(StrEnum):
    """How it ended. `inconsistent`: some run the new version and some the old one, or nobody knows; the members say who."""

    COMPLETE = "complete"
    REVERTED = "reverted"
    INCONSISTENT = "inconsistent"


class Course(StrEnum):
    """What the coordinator has told a member, and what came of it."""

    SETTLED = "settled"  # it ran the release before: it is only probed
    WAITING = "waiting"  # it is to prepare, or its turn has not come
    GOING = "going"  # it is to try the new version
    CONFIRMING = "confirming"  # it is to make the new version permanent
    DROPPING = "dropping"  # it is to let go before it has tried anything
    BACKING = "backing"  # it is to go back
    KEPT = "kept"  # another one could not go back and rests on it: it is to stay on the new version
    NEW = "new"  # it runs the new version for good
    OLD = "old"  # it runs the old version
    STUCK = "stuck"  # it did not do what it was told, and somebody has to look at it


OVER = frozenset({Course.SETTLED, Course.NEW, Course.OLD, Course.STUCK})
"""Nothing more is told to such a member."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """At most `at_most` of `nodes` are on their way at the same moment."""

    nodes: tuple[str, ...]
    at_most: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One node's part. `needs` are those that must run their new version while this one does.

    `previous` is what it ran before, None where nobody knows. `hold`: its trial waits for the decision. `reverts`: it can
    go back. `tries` counts what it was ordered since the decision, `since` is when it was told last.
    """

    node: str
    step: int
    release: Release
    previous: Release | None = None
    hold: bool = True
    reverts: bool = True
    needs: tuple[str, ...] = ()
    interlocks: tuple[str, ...] = ()
    course: Course = Course.WAITING
    action: int | None = None
    tries: int = 0
    since: datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that happened, for people."""

    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class Coordination:
    """A release of many members. `step` is where the phase is, `entered` when it got there; `why` is why it reverts.

    `paused` is since when, None if it is not; `shut` names the interlock that is waited for. `lost` is what members on trial
    do by themselves once they have not heard from the gateway for `deadlines.hold_s`.
    """

    id: int
    plan: str
    version: str
    repository: str
    requested_by: str
    reason: str
    created: datetime
    phase: Phase
    step: int
    entered: datetime
    members: tuple[Member, ...]
    decision: Decision = Decision.NONE
    why: str = ""
    paused: datetime | None = None
    shut: str = ""
    deadlines: Deadlines = _USUAL
    lost: Lost = Lost.REVERT
    quorums: tuple[Quorum, ...] = ()
    remarks: tuple[Remark, ...] = field(default=())
    ending: Ending | None = None
    ended: datetime | None = None

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return 1 + max((member.step for member in self.members), default=-1)

    @property
    def by_name(self) -> Mapping[str, Member]:
        """The members by their nodes."""
        return {member.node: member for member in self.members}
