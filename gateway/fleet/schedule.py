"""The order in which a release plan is carried out on one site, or why it cannot be: pure values, made by `gateway.fleet.plan`.

1. The devices of one step may change in any order and at the same moment: every mix of old and new among them is allowed.
   The next step begins when all of them have come up well.
2. Reverts take the steps in descending order, and so pass mixes that were allowed on the way up. What must stay new because a
   device did not go back is `kept_with` it; a device may go back once nothing of `waits_for` is new any more.
3. A device that runs its release already is in no step: it is probed with the others before the decision.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from update.errors import PlanRefusedError
from update.identity import Hardware
from update.plans.plan import Accept, PlanBundle


class Revert(StrEnum):
    """How a device goes back."""

    SWITCH = "switch"  # to the previous version that it still holds, by itself or on demand
    RE_FLASH = "re-flash"  # by writing the previous image again
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Device:
    """A node as it is known when a plan is made; empty texts where nobody has said. `hold`: its trial waits for a decision."""

    id: str
    hardware: Hardware | None
    version: str = ""
    sha256: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    hold: bool = True
    revert: Revert = Revert.SWITCH
    serial_recovery: bool = False
    assigner: str = "site"


@dataclass(frozen=True, slots=True)
class ScheduledDevice:
    """What is to happen with one device; `bundle` is None for one that is only watched. `interlocks` include the plan's."""

    id: str
    member: str
    version: str
    sha256: str
    bundle: PlanBundle | None
    accepts: frozenset[Accept] = frozenset()
    interlocks: tuple[str, ...] = ()
    hold: bool = True
    revert: Revert = Revert.SWITCH


class EdgeKind(StrEnum):
    """Why some devices go before others."""

    REQUIREMENT = "requirement"
    GROUP = "group"
    LATE = "late"  # what cannot go back, or does not wait for the decision, comes last


@dataclass(frozen=True, slots=True)
class Edge:
    """Every device of `before` comes up well before any of `after` is activated, because of `reason`."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    kind: EdgeKind
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """At most `at_most` of `devices` may be down or on their way at the same moment."""

    devices: tuple[str, ...]
    at_most: int
    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order. `settled` run their release already, `watched` are never touched; `notes` are for people."""

    plan: str
    version: str
    steps: tuple[tuple[ScheduledDevice, ...], ...]
    settled: tuple[ScheduledDevice, ...] = ()
    watched: tuple[ScheduledDevice, ...] = ()
    edges: tuple[Edge, ...] = ()
    limits: tuple[DeviceLimit, ...] = ()
    notes: tuple[str, ...] = ()

    def reverse(self) -> tuple[tuple[ScheduledDevice, ...], ...]:
        """The steps in which everything goes back; within a step in any order."""
        return self.steps[::-1]

    def waits_for(self, device: str, new: Collection[str]) -> tuple[str, ...]:
        """Which of `new` (devices on their new version) must be back before `device` may go back, for requirements' sake."""
        return tuple(sorted({each for edge in self._required() if device in edge.before for each in edge.after} & {*new}))

    def kept_with(self, stuck: Iterable[str]) -> frozenset[str]:
        """The devices `stuck` on their new version, and all that must stay new with them so that every requirement holds."""
        kept, found = frozenset[str](), frozenset(stuck)
        while found - kept:
            kept |= found
            found = frozenset(each for edge in self._required() if not kept.isdisjoint(edge.after) for each in edge.before)
        return kept

    def _required(self) -> Iterable[Edge]:
        return (edge for edge in self.edges if edge.kind is EdgeKind.REQUIREMENT)


class Obstacle(StrEnum):
    """Why a plan cannot be carried out here."""

    SELECTION = "selection"  # too few devices, or one device plays two parts
    BUNDLE = "bundle"  # the plan's bundle is not what the repository lists
    HARDWARE = "hardware"
    ASSIGNER = "assigner"
    CAPABILITY = "capability"  # what a device cannot do, and the plan does not accept
    INTERLOCK = "interlock"
    UNKNOWN = "unknown"  # a device has not said what is needed to judge it
    REQUIREMENT = "requirement"
    LIMIT = "limit"
    CYCLE = "cycle"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason against a plan: `message` says what and what to do, `devices` are concerned, `requirement` as it is written."""

    obstacle: Obstacle
    message: str
    devices: tuple[str, ...] = ()
    requirement: str = ""


@dataclass(frozen=True, slots=True)
class PlanRefused:
    """All reasons against a plan; nothing was touched."""

    plan: str
    version: str
    findings: tuple[Finding, ...]

    def error(self) -> PlanRefusedError:
        """The refusal as an error of the tree."""
        reasons = "; ".join(each.message for each in self.findings)
        return PlanRefusedError(f"release plan {self.plan} {self.version} cannot be carried out: {reasons}")
