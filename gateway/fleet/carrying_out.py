"""One step of a coordinated release, carried out within one transaction: what is told to members, and what is journaled of it.

- Every order is an action of the site with the node's next fence; what changes about it afterwards is how far the node may go.
- A member that was never told of its action is let go at once; one that may know of it ends it by its own word.
- The higher a step, the sooner its members go back by themselves if the gateway is lost: descending order, without a gateway.
- `last_seen` knows when a node was here better than the database, where it is written only from time to time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from gateway.database.coordinated import Coordination, Course, Decision, Ending, Member, Phase
from gateway.database.engine import Transaction
from gateway.database.queries import actions, coordinations, nodes
from gateway.database.records import SITE, Action, ActionOutcome, ActionState, Commit, End, Hold, Node, Release
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
)
from gateway.fleet.issuing import withdraw
from gateway.fleet.places import Standing, Standings
from gateway.fleet.telling import Telling
from update.wire.assignment import MAX_HOLD_S

LastSeen = Callable[[Node], datetime]


@dataclass(frozen=True, slots=True)
class Hand:
    """What carries steps out, in one transaction."""

    transaction: Transaction
    telling: Telling
    now: datetime

    async def prepare(self, run: Coordination) -> None:
        """Order the release of every member that can hold, as far as writing it."""
        for member in run.members:
            if member.hold and member.course is Course.WAITING:
                await self._order(run, member, member.release, Commit.PREPARE, tries=0)

    async def carry_out(self, run: Coordination, step: Step) -> None:
        """Do it."""
        match step:
            case Enter(phase, number):
                await coordinations.enter(self.transaction, run.id, phase, number, now=self.now)
            case Decide(decision, why):
                await self._decide(run, decision, why)
            case Go(node):
                await self._go(run, run.by_name[node])
            case Confirm(node):
                await self._tell(run, run.by_name[node], Commit.COMMIT, Course.CONFIRMING)
            case Keep(node, note):
                await self._tell(run, run.by_name[node], Commit.COMMIT, Course.KEPT, note)
            case Drop(node):
                await self._let_go(run, run.by_name[node], Course.DROPPING)
            case TakeBack(node):
                await self._let_go(run, run.by_name[node], Course.BACKING)
            case Order(node):
                await self._again(run, run.by_name[node], run.by_name[node].release, Course.CONFIRMING)
            case Return(node):
                member = run.by_name[node]
                await self._again(run, member, member.previous or member.release, Course.BACKING)
            case Settle(node, course, note):
                await self._settle(run, node, course, note)
            case Finish(ending):
                await self._finish(run, ending)
            case _:
                assert_never(step)

    async def _decide(self, run: Coordination, decision: Decision, why: str) -> None:
        await coordinations.decide(self.transaction, run.id, decision, why)
        forward = decision is Decision.COMMIT
        phase, first = (Phase.COMMITTING, 0) if forward else (Phase.REVERTING, run.steps - 1)
        await coordinations.enter(self.transaction, run.id, phase, first, now=self.now)
        await self._remark(run, f"decided to {'complete the release' if forward else 'go back'}: {why}".removesuffix(": "))

    async def _go(self, run: Coordination, member: Member) -> None:
        if member.hold:
            await self._tell(run, member, Commit.HOLD, Course.GOING)
            return
        await self._order(run, member, member.release, Commit.COMMIT, tries=0)
        await self._course(run, member.node, Course.GOING)

    async def _tell(self, run: Coordination, member: Member, commit: Commit, course: Course, note: str = "") -> None:
        if member.action is not None:
            await actions.decide(self.transaction, member.action, commit)
        await self._course(run, member.node, course, note)
        if note:
            await self._remark(run, f"{member.node} {note}")

    async def _let_go(self, run: Coordination, member: Member, course: Course) -> None:
        action = None if member.action is None else await actions.find(self.transaction, member.action)
        if action is not None and action.state is not ActionState.CLOSED:
            if member.hold and action.offered is not None:
                await actions.decide(self.transaction, action.id, Commit.ABORT)
            elif action.state is not ActionState.CANCELLING:
                words = f"release plan {run.plan} {run.version} goes back: {run.why}"
                end = End(self.now, ActionOutcome.CANCELLED, "", words)
                await withdraw(self.transaction, self.telling, action, end)
        await self._course(run, member.node, course)

    async def _again(self, run: Coordination, member: Member, release: Release, course: Course) -> None:
        await self._order(run, member, release, Commit.COMMIT, tries=member.tries + 1)
        await self._course(run, member.node, course)
        await self._remark(run, f"{member.node} is ordered {release.version or release.path}, try {member.tries + 1}")

    async def _settle(self, run: Coordination, node: str, course: Course, note: str) -> None:
        await self._course(run, node, course, note)
        if note:
            await self._remark(run, f"{node} is {course}: {note}")

    async def _finish(self, run: Coordination, ending: Ending) -> None:
        await self._remark(run, f"ended {ending}")
        await coordinations.end(self.transaction, run.id, ending, now=self.now)

    async def _order(self, run: Coordination, member: Member, release: Release, commit: Commit, *, tries: int) -> None:
        action = await actions.add(
            self.transaction,
            member.node,
            release,
            fence=await nodes.raise_fence(self.transaction, member.node),
            assigner=SITE,
            requested_by=run.requested_by,
            reason=f"release plan {run.plan} {run.version}: {run.why or run.reason}".removesuffix(": "),
            now=self.now,
            commit=commit,
            hold=_hold(run, member) if member.hold else None,
        )
        await coordinations.set_action(self.transaction, run.id, member.node, action.id, tries)

    async def _course(self, run: Coordination, node: str, course: Course, note: str = "") -> None:
        await coordinations.set_course(self.transaction, run.id, node, course, now=self.now, note=note)

    async def _remark(self, run: Coordination, words: str) -> None:
        await coordinations.remark(self.transaction, run.id, words, now=self.now)


async def look_at(transaction: Transaction, run: Coordination, last_seen: LastSeen) -> Standings:
    """What is known of the members."""
    ordered = await actions.several(transaction, [member.action for member in run.members if member.action is not None])
    known = await nodes.several(transaction, [member.node for member in run.members])
    return {
        member.node: _standing(member, ordered.get(member.action or 0), known[member.node], last_seen) for member in run.members
    }


def _standing(member: Member, action: Action | None, node: Node, last_seen: LastSeen) -> Standing:
    runs = node.running.sha256 == member.release.sha256
    if action is None:
        return Standing(heard=last_seen(node), runs=runs)
    return Standing(
        outcome=None if action.end is None else action.end.outcome,
        stage=action.stage,
        heard=last_seen(node),
        returning=action.release != member.release,
        runs=runs,
        words="" if action.end is None else f"{action.end.message} ({action.end.code})".removesuffix(" ()"),
    )


def _hold(run: Coordination, member: Member) -> Hold:
    """How long a member holds without hearing from the gateway: long enough for the steps above its own to go back first."""
    if not run.deadlines.hold_s:
        return Hold(0, run.lost)
    return Hold(min(MAX_HOLD_S, run.deadlines.hold_s + (run.steps - 1 - member.step) * run.deadlines.revert_s), run.lost)
