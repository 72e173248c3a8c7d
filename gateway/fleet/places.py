"""Where each member of a coordinated release is, by what is known of its action; pure.

Known is what the member said last. A member that was told to try the new version and is silent may be anywhere: it counts as
on its way, and for whatever would be wrong if it ran the new version, as if it did.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.database.coordinated import Coordination, Course, Member
from gateway.database.records import ActionOutcome, Stage


class Place(StrEnum):
    """Where a member is."""

    OLD = "old"  # on the version that it came from, with nothing under way
    AWAY = "away"  # on its way, or silent
    PREPARED = "prepared"  # on the old version, the new one is written
    HOLDING = "holding"  # on the new version, waiting for the decision
    NEW = "new"  # on the new version for good
    LOST = "lost"  # its action ended, and nobody knows what it runs


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a member's action: `outcome` None while it is open or not ordered.

    `heard` is when it was here last: an agent that holds asks only after its health checks have passed once more, and tells
    first what has become otherwise. `returning`: the action orders the release that it ran before. `runs`: it says that it
    runs the new release.
    """

    outcome: ActionOutcome | None = None
    stage: Stage = Stage.NONE
    heard: datetime | None = None
    returning: bool = False
    runs: bool = False
    words: str = ""


Standings = Mapping[str, Standing]
UNHEARD = Standing()

_STAYED = frozenset(
    {
        ActionOutcome.CANCELLED,
        ActionOutcome.FAILURE,
        ActionOutcome.REFUSED,
        ActionOutcome.ROLLED_BACK,
        ActionOutcome.SUPERSEDED,
    }
)
"""An action that ended so has left its node on, or taken it back to, what it ran before the action."""


def place_of(member: Member, standing: Standing) -> Place:
    """Where a member is."""
    if member.action is None:
        return Place.NEW if member.course is Course.SETTLED else Place.OLD
    if standing.outcome is None:
        return {Stage.NONE: Place.AWAY, Stage.PREPARED: Place.PREPARED, Stage.HOLDING: Place.HOLDING}[standing.stage]
    if standing.outcome is ActionOutcome.SUCCESS:
        return Place.OLD if standing.returning else Place.NEW
    return Place.OLD if standing.outcome in _STAYED and not standing.returning else Place.LOST


def has_arrived(member: Member, standing: Standing) -> bool:
    """Whether it runs the new version by its own word."""
    return place_of(member, standing) in {Place.HOLDING, Place.NEW}


def is_moving(member: Member, standing: Standing) -> bool:
    """Whether it was told something that has it restart, and that is not over."""
    if standing.outcome is not None or member.action is None:
        return False
    match member.course:
        case Course.GOING | Course.CONFIRMING:
            return standing.stage is not Stage.HOLDING
        case Course.BACKING:
            return True
        case Course.WAITING | Course.DROPPING | Course.KEPT | Course.SETTLED | Course.NEW | Course.OLD | Course.STUCK:
            return False


def may_be_new(member: Member, standing: Standing) -> bool:
    """Whether it may run the new version, for all that is known."""
    if member.course in {Course.WAITING, Course.DROPPING, Course.OLD}:
        return place_of(member, standing) is Place.NEW
    return member.course is Course.NEW or place_of(member, standing) is not Place.OLD


def fits(run: Coordination, standings: Standings, node: str, besides: Iterable[str] = ()) -> bool:
    """Whether no quorum forbids that `node` begins to move, with what moves now and `besides`."""
    moving = {each.node for each in run.members if is_moving(each, standings.get(each.node, UNHEARD))}
    moving = {*moving, *besides, node}
    return all(len(moving & {*quorum.nodes}) <= quorum.at_most for quorum in run.quorums if node in quorum.nodes)


def kept_with(run: Coordination, stuck: Iterable[str]) -> frozenset[str]:
    """`stuck` and all that must stay on the new version while these may run it."""
    needs, kept, found = {member.node: member.needs for member in run.members}, frozenset[str](), frozenset(stuck)
    while found - kept:
        kept |= found
        found = frozenset(each for node in kept for each in needs.get(node, ()))
    return kept


def broken(run: Coordination, standings: Standings) -> tuple[str, ...]:
    """What the plan forbids and is so now, by what is known: members on the new version whose needs are on the old one."""
    places = {each.node: place_of(each, standings.get(each.node, UNHEARD)) for each in run.members}
    return tuple(
        f"{member.node} runs {member.release.version} while {need} is back on its old version"
        for member in run.members
        if places[member.node] in {Place.HOLDING, Place.NEW}
        for need in member.needs
        if places.get(need) in {Place.OLD, Place.PREPARED}
    )
