"""What the page and its API show, as values: the sticks as everybody shows them, and of every node what runs and what is wanted.

Much less than operators see: the page asks for no login, so it tells what a person in front of the machines needs, and neither
addresses nor attributes.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from gateway.database.records import ActionOutcome, ActionState
from gateway.status import NodeState, Wanted
from media.signals import Show, Signal

SCHEMA: Final = 1
"""Fields are added under the same number; one that changes its meaning raises it."""


class Condition(StrEnum):
    """How a node stands between what runs and what is wanted; the page shows them in this order."""

    FAILED = "failed"
    UPDATING = "updating"
    WAITING = "waiting"
    UNVERIFIED = "unverified"
    CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Stick:
    """One medium: its signal, spread out. `done` of `total` are bytes while copying, nodes while updating."""

    medium: str
    label: str
    show: Show
    removable: bool
    since: int
    done: int
    total: int
    percent: int
    code: str
    message: str

    @classmethod
    def of(cls, medium: str, signal: Signal) -> "Stick":
        """The same signal, of this medium."""
        counts = (signal.done, signal.total, signal.percent)
        return cls(
            medium, signal.label, signal.show, signal.removable, signal.since, *counts, code=signal.code, message=signal.message
        )

    @property
    def signal(self) -> Signal:
        """For the words that are the same everywhere."""
        figures = (self.since, self.done, self.total)
        return Signal(self.show, self.label, self.removable, *figures, code=self.code, message=self.message)


@dataclass(frozen=True, slots=True)
class Node:
    """One node: what runs by its own word, what is wanted, and how that stands. Empty: not known, or nothing."""

    id: str
    condition: Condition
    late: bool
    last_seen: datetime
    runs: str
    slot: str
    wanted: str
    since: datetime | None = None
    standing: str = ""
    done: int = 0
    total: int = 0
    code: str = ""
    message: str = ""

    @classmethod
    def of(cls, node: NodeState) -> "Node":
        """The part of a node's state that is shown to everybody."""
        known = (node.id, condition_of(node.wanted), node.late, node.last_seen, node.running.version, node.running.slot)
        if (wanted := node.wanted) is None:
            return cls(*known, wanted="")
        done, total = _figures(wanted)
        return cls(
            *known,
            wanted=wanted.version,
            since=wanted.since,
            standing=wanted.standing,
            done=done,
            total=total,
            code=wanted.code,
            message=wanted.message,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown, at one moment."""

    gateway: str
    version: str
    now: datetime
    sticks: tuple[Stick, ...]
    nodes: tuple[Node, ...]
    schema: int = SCHEMA


_WELL: Final = frozenset({
    ActionOutcome.SUCCESS, ActionOutcome.DOWNLOADED, ActionOutcome.CANCELLED, ActionOutcome.SUPERSEDED,
})  # fmt: skip


def condition_of(wanted: Wanted | None) -> Condition:
    """Of a node that this is wanted on."""
    if wanted is None or wanted.outcome in _WELL:
        return Condition.CURRENT
    if wanted.outcome == ActionOutcome.UNVERIFIED:
        return Condition.UNVERIFIED
    if wanted.outcome:
        return Condition.FAILED
    at_it = wanted.installed is not None or wanted.report
    return Condition.UPDATING if at_it and wanted.state == ActionState.OPEN else Condition.WAITING


def _figures(wanted: Wanted) -> tuple[int, int]:
    done, total = wanted.report.get("done"), wanted.report.get("total")
    if wanted.outcome or not isinstance(done, int) or not isinstance(total, int) or not 0 <= done <= total:
        return 0, 0
    return done, total
