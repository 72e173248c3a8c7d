"""What a release plan says, as pure values: the coordinator of a site carries it out, nothing here can do I/O.

1. A *member* is a part that devices play; its selector says which nodes of a site play it, one or many. All of them get the
   member's bundle. A member without a bundle is only watched: requirements may speak of it, nobody changes it.
2. A requirement (`need` while `given`) holds if every device of `need`'s member is in its range as long as any device of
   `given`'s member is in the other one; with `per` only devices count together whose attribute of that name is the same
   (`per = "line"`: the motors and the controller of one line). It must hold at every moment, not only at the end.
3. A limit keeps devices from being changed at the same moment: at most `at_most` of those that its members mean, or so few
   that `keep_up` of them stay up; with `per` for each value of that attribute alone.
4. Groups are activated in ascending order. A group is what may go in parallel: requirements and limits may still divide it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from update.digest import Digest
from update.identity import Hardware
from update.plans.ranges import Condition


class Accept(StrEnum):
    """What a plan takes into account for a member; without it a device that is so has the plan refused."""

    NO_REVERT = "no-revert"  # it cannot go back: after it was activated the release can only be completed
    NO_HOLD = "no-hold"  # it makes its new version permanent without waiting for the common decision
    RE_FLASH = "re-flash"  # it goes back only by writing the previous image again
    SERIAL_RECOVERY = "serial-recovery"  # its bootloader waits for an image: there is nothing to go back to


class Lost(StrEnum):
    """What a device on trial does by itself, if the gateway is lost for longer than its hold."""

    REVERT = "revert"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class PlanBundle:
    """A bundle as the plan pins it: a target's path in the same repository, its SHA-256, and the version it brings."""

    path: str
    sha256: Digest
    version: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Which nodes are meant: those that every given part admits, one of the names, one of the hwIds, all attributes."""

    nodes: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def admits(self, node: str, hardware: Hardware | None, attributes: Mapping[str, str]) -> bool:
        """Whether a node is meant. `HardwareError` for a pattern that does not compile."""
        if self.nodes and node not in self.nodes:
            return False
        if any(attributes.get(name) != value for name, value in self.attributes.items()):
            return False
        return not self.hardware or (hardware is not None and hardware.accepts(self.hardware))


@dataclass(frozen=True, slots=True)
class PlanMember:
    """A part that devices play. `least` is how many of them a site must have; None `group`: requirements alone order it.

    `interlocks` are names of the site's configuration that must be open before one of its devices restarts.
    """

    name: str
    selector: Selector
    bundle: PlanBundle | None
    group: int | None = None
    accepts: frozenset[Accept] = frozenset()
    interlocks: tuple[str, ...] = ()
    least: int = 1


@dataclass(frozen=True, slots=True)
class Requirement:
    """`need` must hold while `given` does, always if that is None; compared `per` value of an attribute, empty: everywhere."""

    need: Condition
    given: Condition | None = None
    per: str = ""

    def __str__(self) -> str:
        given = "" if self.given is None else f" while {self.given}"
        return f"{self.need}{given}" + (f" per {self.per}" if self.per else "")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many devices of `members` may be changed at once; exactly one of `at_most` and `keep_up` is given."""

    members: tuple[str, ...]
    at_most: int | None = None
    keep_up: int | None = None
    per: str = ""

    def __str__(self) -> str:
        what = f"at most {self.at_most}" if self.keep_up is None else f"{self.keep_up} kept up"
        return f"{what} of {', '.join(self.members)}" + (f" per {self.per}" if self.per else "")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a phase may take for one device, from its beginning; what is late before the decision reverts everything.

    `hold_s`: how long a device on trial waits for the decision without hearing from the gateway; then it does what `lost`
    of the plan says.
    """

    prepare_s: int = 86_400
    activate_s: int = 900
    test_s: int = 900
    commit_s: int = 900
    revert_s: int = 1_800
    hold_s: int = 14_400


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """One release of many devices. `interlocks` are those of every member, beside its own."""

    name: str
    version: str
    members: tuple[PlanMember, ...]
    requirements: tuple[Requirement, ...] = ()
    limits: tuple[Limit, ...] = ()
    deadlines: Deadlines = Deadlines()
    lost: Lost = Lost.REVERT
    interlocks: tuple[str, ...] = ()
    description: str = ""

    def member(self, name: str) -> PlanMember:
        """The member of that name; `KeyError` if there is none (a plan that was read names only its own)."""
        return {each.name: each for each in self.members}[name]
