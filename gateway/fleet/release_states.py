"""How coordinated releases are shown: where each member is, what was decided and why, what to do; pure.

A plan's forbidden mix that exists all the same (a device went back by itself) is shown as long as it does, whatever the
release ends as.
"""

from dataclasses import dataclass
from datetime import datetime

from gateway.database.coordinated import Coordination, Course, Ending, Member, Phase
from gateway.fleet.places import UNHEARD, Standing, Standings, broken, place_of


@dataclass(frozen=True, slots=True)
class MemberState:
    """One member: `course` is what it was told, or what came of it; `place` is where it is by its own word."""

    node: str
    step: int
    version: str
    course: str
    place: str
    note: str
    action: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class RemarkState:
    """What happened, and when."""

    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """One release; steps count from 1. `broken`: what the plan forbids and is so now. `advice`: what people have to do."""

    id: int
    plan: str
    version: str
    repository: str
    requested_by: str
    reason: str
    created: datetime
    phase: str
    step: int
    steps: int
    decision: str
    why: str
    paused: datetime | None
    shut: str
    ending: str
    ended: datetime | None
    members: tuple[MemberState, ...]
    remarks: tuple[RemarkState, ...] = ()
    broken: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def standing(self) -> str:
        """How it stands, in a few words."""
        if self.ending:
            return self.ending
        words = self.phase
        if self.phase in {Phase.ACTIVATING, Phase.COMMITTING, Phase.REVERTING} and self.steps > 1:
            words += f" step {self.step} of {self.steps}"
        words += " (paused)" if self.paused is not None else f" (interlock {self.shut} is shut)" if self.shut else ""
        return words


def state_of(run: Coordination, standings: Standings) -> ReleaseState:
    """How a run stands, by what is known of its members."""
    forbidden = broken(run, standings) if run.phase is not Phase.ENDED or run.ending is Ending.INCONSISTENT else ()
    return ReleaseState(
        id=run.id,
        plan=run.plan,
        version=run.version,
        repository=run.repository,
        requested_by=run.requested_by,
        reason=run.reason,
        created=run.created,
        phase=run.phase,
        step=run.step + 1,
        steps=run.steps,
        decision=run.decision,
        why=run.why,
        paused=run.paused,
        shut=run.shut,
        ending=run.ending or "",
        ended=run.ended,
        members=tuple(_member(member, standings.get(member.node, UNHEARD)) for member in run.members),
        remarks=tuple(RemarkState(each.at, each.words) for each in run.remarks),
        broken=forbidden,
        advice=tuple(_advice(run, member) for member in run.members if _needs_people(run, member)),
    )


def _member(member: Member, standing: Standing) -> MemberState:
    return MemberState(
        node=member.node,
        step=member.step + 1,
        version=member.release.version,
        course=member.course,
        place=place_of(member, standing),
        note=member.note,
        action=member.action or 0,
        since=member.since,
    )


def _needs_people(run: Coordination, member: Member) -> bool:
    kept = run.ending is Ending.INCONSISTENT and member.course is Course.NEW and bool(member.note)
    return member.course is Course.STUCK or kept


def _advice(run: Coordination, member: Member) -> str:
    if member.course is Course.NEW:
        return f"{member.node} {member.note}; when that one is repaired, order the same for both"
    wanted = member.release if run.decision == "commit" else member.previous
    version = "what it shall run" if wanted is None else wanted.version or wanted.path
    return f"look at {member.node}: it {member.note}; then order {version} for it with `fieldrelay gateway assign`"
