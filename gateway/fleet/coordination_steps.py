"""What a coordinator can do next for a coordinated release; `gateway.fleet.coordination` says what and when."""

from dataclasses import dataclass
from typing import assert_never

from gateway.database.coordinated import Course, Decision, Ending, Phase


@dataclass(frozen=True, slots=True)
class Enter:
    """Begin a phase, or its next step."""

    phase: Phase
    step: int


@dataclass(frozen=True, slots=True)
class Decide:
    """The one decision, and why; its phase begins with it."""

    decision: Decision
    why: str


@dataclass(frozen=True, slots=True)
class Go:
    """A member shall try the new version and hold it; one that cannot hold is ordered it."""

    node: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """A member shall go to the end. `restarts`: that makes it try the new version first."""

    node: str
    restarts: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A member is ordered the new release once more, to the end."""

    node: str


@dataclass(frozen=True, slots=True)
class Drop:
    """A member that has tried nothing shall let go."""

    node: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """A member shall end its trial and go back."""

    node: str


@dataclass(frozen=True, slots=True)
class Return:
    """A member is ordered the release that it ran before."""

    node: str


@dataclass(frozen=True, slots=True)
class Keep:
    """A member shall stay on the new version for good, because another one that needs it is stuck there."""

    node: str
    note: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Book what became of a member."""

    node: str
    course: Course
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over."""

    ending: Ending


Step = Enter | Decide | Go | Confirm | Order | Drop | TakeBack | Return | Keep | Settle | Finish


def restarted_by(step: Step) -> str:
    """The node that restarts because of a step: its interlocks are read immediately before; empty: none does."""
    match step:
        case Go(node) | Order(node) | TakeBack(node) | Return(node) | Confirm(node, restarts=True):
            return node
        case Confirm() | Enter() | Decide() | Drop() | Keep() | Settle() | Finish():
            return ""
        case _:
            assert_never(step)
