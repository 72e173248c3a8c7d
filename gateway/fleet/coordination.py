"""What follows in a coordinated release: a pure function of the journaled run, of what its members said, and of the time.

Rules:

1. Everybody prepares; then step by step the members of a step try the new version and hold it, as many at once as the
   quorums allow. A step begins when everybody of the steps before was heard again since. Members that cannot hold are
   ordered last in their step.
2. When all hold, everybody is heard once more; then the one decision falls. It is in the database before anybody is told.
3. Before the decision, whatever fails or is late decides for the way back. Where a member that cannot go back was told to try
   already, only completion is left, and the decision is *commit*.
4. After *commit* there is only the way forward, in ascending order: who went back by itself is ordered again.
   So whoever loses the gateway then and goes back by itself is one that nobody rests on.
5. The way back is in descending order, a step begins when the one above is over. Who does not go back is *stuck*, and what it
   rests on is *kept* on the new version and made permanent: the mix that the plan forbids is never made knowingly.
6. A paused run tells nobody anything; what members say is still taken in.

Each step is done in one transaction of its own and found again after a crash, because it follows from what is stored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from gateway.database.coordinated import OVER, Coordination, Course, Decision, Ending, Member, Phase
from gateway.database.records import Stage
from gateway.fleet.coordination_steps import (
    Confirm,
    Decide,
    Drop,
    Enter,
    Finish,
    Go,
    Keep,
    Order,
    Return,
    Settle,
    Step,
    TakeBack,
    restarted_by,
)
from gateway.fleet.places import UNHEARD, Place, Standing, Standings, fits, has_arrived, kept_with, place_of

MAX_TRIES = 3
"""How often a member is ordered again after the decision."""


def following(run: Coordination, standings: Standings, now: datetime) -> tuple[Step, ...]:
    """What is to be done now, in this order of urgency; each step may make the others obsolete. Nothing: wait."""
    look = _Look(run, standings, now)
    match run.phase:
        case Phase.PREPARING:
            steps = tuple(_preparing(look))
        case Phase.ACTIVATING:
            steps = tuple(_activating(look))
        case Phase.PROBING:
            steps = tuple(_probing(look))
        case Phase.COMMITTING:
            steps = tuple(_committing(look))
        case Phase.REVERTING:
            steps = tuple(_reverting(look))
        case Phase.ENDED:
            steps = ()
        case _:
            assert_never(run.phase)
    return tuple(step for step in steps if run.paused is None or isinstance(step, Settle))


def aborting(run: Coordination, standings: Standings, now: datetime, why: str) -> Decide:
    """The decision that an operator's abort means before there is one."""
    return _failed(_Look(run, standings, now), why)


@dataclass(frozen=True, slots=True)
class _Look:
    """A run, what is known of its members, and the time."""

    run: Coordination
    standings: Standings
    now: datetime

    def standing(self, member: Member) -> Standing:
        return self.standings.get(member.node, UNHEARD)

    def place(self, member: Member) -> Place:
        return place_of(member, self.standing(member))

    def layer(self) -> Iterator[Member]:
        """The members of the step that the run is at."""
        return (member for member in self.run.members if member.step == self.run.step)

    def is_late(self, since: datetime | None, allowed_s: int) -> bool:
        return (since or self.run.entered) + timedelta(seconds=allowed_s) <= self.now

    def was_heard(self, member: Member) -> bool:
        """Whether a member has said since the run got here that it runs the new version."""
        standing = self.standing(member)
        heard = standing.heard is not None and standing.heard > self.run.entered
        return heard and (self.place(member) is Place.HOLDING or standing.runs)


def _preparing(look: _Look) -> Iterator[Step]:
    waiting = [each for each in look.run.members if each.course is Course.WAITING and each.hold]
    late = [each for each in waiting if look.place(each) is not Place.PREPARED]
    if why := _trouble(look):
        yield _failed(look, why)
    elif not late:
        yield Enter(Phase.ACTIVATING, 0)
    elif look.is_late(None, look.run.deadlines.prepare_s):
        yield _failed(look, f"{_names(late)} did not prepare within {look.run.deadlines.prepare_s} s")


def _activating(look: _Look) -> Iterator[Step]:
    layer = [each for each in look.run.members if each.step == look.run.step and each.course is not Course.SETTLED]
    ready, began = _may_begin(look, layer), [each.since for each in layer if each.since and each.course is Course.GOING]
    outstanding = [each for each in layer if each.course is Course.WAITING]
    allowed_s = look.run.deadlines.activate_s + look.run.deadlines.test_s
    if why := _trouble(look):
        yield _failed(look, why)
    elif all(has_arrived(each, look.standing(each)) for each in layer):
        last = look.run.step + 1 >= look.run.steps
        yield Enter(Phase.PROBING, look.run.step) if last else Enter(Phase.ACTIVATING, look.run.step + 1)
    elif outstanding and look.is_late(max([look.run.entered, *began]), allowed_s):
        shut = f": interlock {look.run.shut} is shut" if look.run.shut else ""
        yield _failed(look, f"{_names(outstanding)} could not be told to begin within {allowed_s} s{shut}")
    else:
        told: list[str] = []
        for each in ready:
            if fits(look.run, look.standings, each.node, told):
                told.append(each.node)
                yield Go(each.node)


def _may_begin(look: _Look, layer: list[Member]) -> list[Member]:
    """Who of a step could be told to begin, but for quorums: those that can hold before those that cannot."""
    below = [each for each in look.run.members if each.step < look.run.step and each.course is Course.GOING]
    if not all(look.was_heard(each) or not each.hold for each in below):
        return []
    waiting = [each for each in layer if each.course is Course.WAITING]
    holding = [each for each in waiting if each.hold]
    if holding:
        return [each for each in holding if look.place(each) is Place.PREPARED]
    return waiting if all(has_arrived(each, look.standing(each)) for each in layer if each.hold) else []


def _probing(look: _Look) -> Iterator[Step]:
    unheard = [each for each in look.run.members if not look.was_heard(each)]
    if why := _trouble(look):
        yield _failed(look, why)
    elif not unheard:
        yield Decide(Decision.COMMIT, "")
    elif look.is_late(None, look.run.deadlines.test_s):
        words = f"{_names(unheard)} did not say within {look.run.deadlines.test_s} s to run the new version, before the decision"
        yield _failed(look, words)


def _trouble(look: _Look) -> str:
    """Why everybody goes back, before the decision; empty where all is well."""
    allowed_s = look.run.deadlines.activate_s + look.run.deadlines.test_s
    for member in look.run.members:
        standing, place = look.standing(member), look.place(member)
        if member.course is Course.WAITING and standing.outcome is not None:
            return f"{member.node} did not prepare: {_said(standing)}"
        if member.course is not Course.GOING or place in {Place.HOLDING, Place.NEW}:
            continue
        if standing.outcome is not None:
            return f"{member.node} does not run the new version: {_said(standing)}"
        if look.is_late(member.since, allowed_s):
            return f"{member.node} did not come up with the new version within {allowed_s} s"
    return ""


def _failed(look: _Look, why: str) -> Decide:
    """The decision that a failure means (rule 3)."""
    beyond = [
        each
        for each in look.run.members
        if each.course is Course.GOING and not each.reverts and look.place(each) is not Place.OLD
    ]
    if not beyond:
        return Decide(Decision.REVERT, why)
    return Decide(Decision.COMMIT, f"{why}; {_names(beyond)} cannot go back, so that only completion is left")


def _committing(look: _Look) -> Iterator[Step]:
    yield from _late_news(look)
    told: list[str] = []
    for member in look.layer():
        if member.course not in OVER and (step := _forward(look, member)) is not None:
            if node := restarted_by(step):
                if not fits(look.run, look.standings, node, told):
                    continue
                told.append(node)
            yield step
    if all(member.course in OVER for member in look.layer()):
        above = look.run.step + 1
        yield Enter(Phase.COMMITTING, above) if above < look.run.steps else _finish(look, Course.NEW, Ending.COMPLETE)


def _forward(look: _Look, member: Member) -> Step | None:
    """The next thing that brings a member to the new version for good."""
    place, standing, limits = look.place(member), look.standing(member), look.run.deadlines
    told = member.course is Course.CONFIRMING
    if place is Place.NEW:
        return Settle(member.node, Course.NEW)
    if member.action is None or standing.outcome is not None:
        if member.tries < MAX_TRIES:
            return Order(member.node)
        return Settle(member.node, Course.STUCK, f"did not take the new version in {MAX_TRIES} tries: {_said(standing)}")
    if not told:
        return Confirm(member.node, restarts=member.course is Course.WAITING)
    allowed_s = limits.activate_s + limits.test_s + limits.commit_s + (limits.prepare_s if member.tries else 0)
    if look.is_late(member.since, allowed_s):
        return Settle(member.node, Course.STUCK, f"did not confirm within {allowed_s} s; its order to do so stands")
    return None


def _reverting(look: _Look) -> Iterator[Step]:
    yield from _late_news(look)
    yield from _dropping(look)
    told: list[str] = []
    for member in look.layer():
        if (step := _backward(look, member)) is not None:
            if node := restarted_by(step):
                moves = isinstance(step, TakeBack) and look.place(member) is not Place.HOLDING
                if not moves and not fits(look.run, look.standings, node, told):
                    continue
                told.append(node)
            yield step
    if all(member.course in {*OVER, Course.DROPPING} for member in look.layer()):
        if look.run.step > 0:
            yield Enter(Phase.REVERTING, look.run.step - 1)
        elif all(member.course in OVER for member in look.run.members):
            yield _finish(look, Course.OLD, Ending.REVERTED)


def _dropping(look: _Look) -> Iterator[Step]:
    """What ends at once in all steps: members that have tried nothing."""
    for member in look.run.members:
        if member.course is Course.WAITING and look.place(member) is not Place.NEW:
            over = member.action is None or look.standing(member).outcome is not None
            yield Settle(member.node, Course.OLD) if over else Drop(member.node)
        elif member.course is Course.DROPPING and look.place(member) is not Place.NEW:
            if look.standing(member).outcome is not None:
                yield Settle(member.node, Course.OLD)
            elif look.is_late(member.since, look.run.deadlines.revert_s):
                yield Settle(member.node, Course.OLD, "has tried nothing, and did not answer; its order to let go stands")


def _backward(look: _Look, member: Member) -> Step | None:
    """The next thing that brings a member back to the old version."""
    match member.course:
        case Course.WAITING | Course.DROPPING:
            return _returned(look, member) if look.place(member) is Place.NEW else None
        case Course.GOING | Course.CONFIRMING:
            return _taken_back(look, member)
        case Course.BACKING:
            return _going_back(look, member)
        case Course.KEPT:
            return _staying(look, member)
        case Course.SETTLED | Course.NEW | Course.OLD | Course.STUCK:
            return None
        case _:
            assert_never(member.course)


def _taken_back(look: _Look, member: Member) -> Step:
    """For a member that was told to try the new version."""
    standing = look.standing(member)
    if look.place(member) is Place.OLD:
        return Settle(member.node, Course.OLD, _said(standing))
    if holders := _rests_on(look, member):
        return Keep(member.node, f"stays on the new version: {holders} could not go back and needs it")
    return TakeBack(member.node) if standing.outcome is None else _returned(look, member)


def _going_back(look: _Look, member: Member) -> Step | None:
    """For a member that was told to go back."""
    standing = look.standing(member)
    if look.place(member) is Place.OLD:
        return Settle(member.node, Course.OLD, "" if standing.returning else _said(standing))
    return _late_return(look, member) if standing.outcome is None else _returned(look, member)


def _staying(look: _Look, member: Member) -> Step | None:
    """For a member that was told to stay on the new version after all."""
    standing = look.standing(member)
    if look.place(member) is Place.NEW:
        return Settle(member.node, Course.NEW)
    if standing.outcome is None and not look.is_late(member.since, look.run.deadlines.commit_s + look.run.deadlines.test_s):
        return None
    return Settle(member.node, Course.STUCK, f"was to stay on the new version: {_said(standing)}")


def _returned(look: _Look, member: Member) -> Step:
    """Have a member whose action is over go back by an order of what it ran before."""
    standing = look.standing(member)
    if member.previous is None or not member.reverts:
        return Settle(member.node, Course.STUCK, f"cannot be taken back from here: {_said(standing)}")
    if member.tries < MAX_TRIES:
        return Return(member.node)
    return Settle(member.node, Course.STUCK, f"did not go back in {MAX_TRIES} tries: {_said(standing)}")


def _late_return(look: _Look, member: Member) -> Step | None:
    limits = look.run.deadlines
    allowed_s = limits.revert_s + (limits.prepare_s if member.tries else 0)
    if not look.is_late(member.since, allowed_s):
        return None
    return Settle(member.node, Course.STUCK, f"did not go back within {allowed_s} s; its order to do so stands")


def _rests_on(look: _Look, member: Member) -> str:
    """Who is stuck, perhaps on the new version, and needs this member on it; empty: nobody."""
    stuck = [each.node for each in look.run.members if each.course is Course.STUCK]
    if member.node not in kept_with(look.run, stuck):
        return ""
    return ", ".join(node for node in stuck if member.node in kept_with(look.run, [node]))


def _late_news(look: _Look) -> Iterator[Step]:
    """Members that were given up and did what they were told in the end."""
    wanted = Place.NEW if look.run.phase is Phase.COMMITTING else Place.OLD
    course = Course.NEW if look.run.phase is Phase.COMMITTING else Course.OLD
    for member in look.run.members:
        if member.course is Course.STUCK and member.action is not None and look.place(member) is wanted:
            yield Settle(member.node, course, "late")


def _finish(look: _Look, course: Course, ending: Ending) -> Finish:
    whole = all(member.course in {course, Course.SETTLED} for member in look.run.members)
    return Finish(ending if whole else Ending.INCONSISTENT)


def _said(standing: Standing) -> str:
    words = f"{standing.outcome or 'silent'}: {standing.words}"
    return words.removesuffix(": ") if standing.stage is Stage.NONE or standing.outcome else f"{words} ({standing.stage})"


def _names(members: Iterable[Member]) -> str:
    names = [member.node for member in members]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
