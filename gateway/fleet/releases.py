"""What operators do with coordinated releases: begin one, pause and resume it, abort it, and look at it.

- A release begins for all of its members or for none: who has an order that has not ended, another assigner, or a part in
  another release, has it refused by name. What members run must still be what the plan was judged by.
- *Pause*: nobody is told anything new; what members are doing already they do to its end, and those on trial hold it. No
  deadline runs meanwhile. *Resume* goes on where it was.
- *Abort*: before the decision, it is the decision to go back, and ends a pause, since going back is what is wanted now. Where
  a member that cannot go back has tried the new version, only completion is left, and the release is completed instead.
  After the decision it is refused: a decision never changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Protocol

from gateway.database.coordinated import Coordination, Course, Decision, Member, Phase, Quorum
from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, coordinations, nodes
from gateway.database.records import SITE, Release
from gateway.fleet.carrying_out import Hand, LastSeen, look_at
from gateway.fleet.coordination import aborting
from gateway.fleet.issuing import refuse_coordinated
from gateway.fleet.release_states import ReleaseState, state_of
from gateway.fleet.schedule import EdgeKind, PlanRefused, Revert, Schedule, ScheduledDevice
from gateway.fleet.telling import NOBODY, Telling
from update.errors import AssignerError, StateError
from update.plans.plan import ReleasePlan

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan as it was judged for this site: `releases` are its bundles by path, `previous` is what nodes run, where known."""

    plan: ReleasePlan
    repository: str
    schedule: Schedule | PlanRefused
    releases: Mapping[str, Release]
    previous: Mapping[str, Release]


class Planner(Protocol):
    """Who judges release plans by what is known of the site now."""

    async def plan(self, release: str, repository: str = "") -> Planned:
        """The plan of that path, name or version. Errors: `UnknownTargetError`, `AmbiguousError`, `PlanError`, `StoreError`."""
        ...


class Releases:
    """Carries out what operators want; the coordinator does the rest."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        planner: Planner,
        *,
        telling: Telling = NOBODY,
        last_seen: LastSeen = attrgetter("last_seen"),
    ) -> None:
        self._database = database
        self._now = now
        self._planner = planner
        self._telling = telling
        self._last_seen = last_seen

    async def start(self, release: str, repository: str, requested_by: str, reason: str) -> ReleaseState:
        """Begin a release: its members prepare.

        Errors: those of the planner, `PlanRefusedError`, `AssignerError`, `StateError`.
        """
        planned = await self._planner.plan(release, repository)
        if isinstance(planned.schedule, PlanRefused):
            raise planned.schedule.error()
        run = _run_of(planned, planned.schedule, requested_by, reason, self._now())
        async with self._database.writing() as transaction:
            await _admit(transaction, planned.schedule, run)
            begun = await coordinations.known(transaction, await coordinations.add(transaction, run))
            await Hand(transaction, self._telling, self._now()).prepare(begun)
            return await self._state(transaction, begun.id)

    async def pause(self, number: int, who: str) -> ReleaseState:
        """Tell nobody anything new. Errors of this and the next: `NotFoundError`, `StateError`."""
        async with self._database.writing() as transaction:
            await _live(transaction, number)
            await coordinations.pause(transaction, number, now=self._now())
            await coordinations.remark(transaction, number, f"paused by {who}", now=self._now())
            return await self._state(transaction, number)

    async def resume(self, number: int, who: str) -> ReleaseState:
        """Go on."""
        async with self._database.writing() as transaction:
            run = await _live(transaction, number)
            await coordinations.resume(transaction, run, now=self._now())
            await coordinations.remark(transaction, number, f"resumed by {who}", now=self._now())
            return await self._state(transaction, number)

    async def abort(self, number: int, who: str) -> ReleaseState:
        """Decide to go back, and go on with that."""
        async with self._database.writing() as transaction:
            run = await _live(transaction, number)
            if run.decision is not Decision.NONE:
                raise StateError(
                    f"release {number} is {run.phase}: its decision ({run.decision}) has fallen, and never changes; "
                    "it can be paused"
                )
            await coordinations.resume(transaction, run, now=self._now())
            standings = await look_at(transaction, run, self._last_seen)
            step = aborting(run, standings, self._now(), f"aborted by {who}")
            await Hand(transaction, self._telling, self._now()).carry_out(run, step)
            return await self._state(transaction, number)

    async def state(self, number: int) -> ReleaseState:
        """How one release stands. `NotFoundError`."""
        async with self._database.reading() as transaction:
            return await self._state(transaction, number)

    async def states(self) -> tuple[ReleaseState, ...]:
        """The newest releases, newest first."""
        async with self._database.reading() as transaction:
            runs = await coordinations.newest(transaction, _SHOWN)
            return tuple([state_of(run, await look_at(transaction, run, self._last_seen)) for run in runs])

    async def current(self) -> tuple[ReleaseState, ...]:
        """Those that are under way, and the newest one whatever it ended as."""
        newest = await self.states()
        return tuple(each for number, each in enumerate(newest) if number == 0 or not each.ending)

    async def _state(self, transaction: Transaction, number: int) -> ReleaseState:
        run = await coordinations.known(transaction, number)
        return state_of(run, await look_at(transaction, run, self._last_seen))


async def _live(transaction: Transaction, number: int) -> Coordination:
    run = await coordinations.known(transaction, number)
    if run.phase is Phase.ENDED:
        raise StateError(f"release {number} has ended: {run.ending}")
    return run


async def _admit(transaction: Transaction, schedule: Schedule, run: Coordination) -> None:
    """Refuse what could not be carried out for all."""
    if not run.members:
        raise StateError(f"release plan {run.plan} {run.version} is for no device of this site")
    names = [member.node for member in run.members]
    await refuse_coordinated(transaction, names)
    known = await nodes.several(transaction, names)
    scheduled = {each.id: each for step in (*schedule.steps, schedule.settled) for each in step}
    if foreign := [f"{name} ({known[name].assigner})" for name in names if known[name].assigner != SITE]:
        raise AssignerError(f"a release plan is carried out by the site; others assign for {', '.join(foreign)}")
    if busy := [name for name in names if await actions.unfinished(transaction, name)]:
        raise StateError(f"{', '.join(busy)} has an order that has not ended: wait for it, or cancel it")
    if changed := [name for name in names if known[name].running.sha256 != scheduled[name].sha256]:
        raise StateError(f"{', '.join(changed)} runs something else since the plan was judged: try again")


def _run_of(planned: Planned, schedule: Schedule, requested_by: str, reason: str, now: datetime) -> Coordination:
    """A run that begins now, as it follows from a schedule."""
    needs: dict[str, set[str]] = {}
    for edge in schedule.edges:
        if edge.kind is EdgeKind.REQUIREMENT:
            for each in edge.after:
                needs.setdefault(each, set()).update(edge.before)
    members = [
        _member(planned, device, step, tuple(sorted(needs.get(device.id, ()))))
        for step, devices in enumerate(schedule.steps)
        for device in devices
    ]
    members += [_member(planned, device, 0, (), Course.SETTLED) for device in schedule.settled]
    return Coordination(
        id=0,
        plan=planned.plan.name,
        version=planned.plan.version,
        repository=planned.repository,
        requested_by=requested_by,
        reason=reason,
        created=now,
        phase=Phase.PREPARING,
        step=0,
        entered=now,
        members=tuple(members),
        deadlines=planned.plan.deadlines,
        lost=planned.plan.lost,
        quorums=tuple(Quorum(each.devices, each.at_most, each.reason) for each in schedule.limits),
    )


def _member(
    planned: Planned, device: ScheduledDevice, step: int, needs: tuple[str, ...], course: Course = Course.WAITING
) -> Member:
    if device.bundle is None:
        raise StateError(f"{device.id} has no bundle in release plan {planned.plan.name}")
    return Member(
        node=device.id,
        step=step,
        release=planned.releases[device.bundle.path],
        previous=planned.previous.get(device.id),
        hold=device.hold,
        reverts=device.revert is not Revert.NONE,
        needs=needs,
        interlocks=device.interlocks,
        course=course,
    )
