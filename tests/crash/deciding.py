"""The gateway's side of a release in which the device is one member of several: what it orders next, by what it was told."""

from dataclasses import dataclass, replace
from enum import StrEnum

from node_agent.record import Report
from node_agent.source import Offer
from node_agent.states import Outcome, State
from update.errors import UnreachableError
from update.wire.assignment import Commit

HOLD_S = 600


class Decision(StrEnum):
    """What is decided when the device holds: about all members."""

    COMMIT = "commit"
    ABORT = "abort"
    LOST = "lost"  # nobody is there any more to say it


@dataclass
class Release:
    """One release and its end for this member; `fence` rises with each order of it that is not the first."""

    decision: Decision
    stage: State | None = None
    reordered: int = 0

    def order(self, offer: Offer) -> Offer:
        """What the gateway wants now. `UnreachableError`: it is lost."""
        order = replace(offer, fence=(offer.fence or 0) + self.reordered, hold_s=HOLD_S)
        match self.stage, self.decision:
            case None, _:
                return replace(order, commit=Commit.PREPARE)
            case State.PREPARED, _:
                return replace(order, commit=Commit.HOLD)
            case _, Decision.COMMIT:
                return replace(order, commit=Commit.COMMIT)
            case _, Decision.ABORT:
                return replace(order, commit=Commit.ABORT)
            case _:
                raise UnreachableError("the gateway is lost")

    def told(self, report: Report) -> bool:
        """Take a report in; whether the action has ended by it. Who went back after the decision to commit is ordered again."""
        if report.state is State.PREPARED and self.stage is None:
            self.stage = State.PREPARED
        if report.state is State.HOLDING:
            self.stage = State.HOLDING
        again = self.is_decided(Decision.COMMIT) and report.outcome is not Outcome.CONFIRMED
        self.reordered += report.final and again
        return report.final and not again

    def is_decided(self, decision: Decision) -> bool:
        """Whether this was decided for all."""
        return self.decision is decision and self.stage is State.HOLDING
