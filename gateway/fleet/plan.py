"""The planner: a release plan and what is known of a site's devices become an order that keeps everything, or reasons why not.

Pure: nothing is asked and nothing is touched. It has four parts: who plays which member and can (`plan_members`), what
requirements, groups and limits demand (`plan_rules`), the order itself (`plan_order`), and what comes out (`schedule`).

1. What speaks against the plan is found completely, not only the first reason: people correct all of it at once.
2. An order exists exactly if the edges have no cycle; its steps are sets of devices in which any may go before any other.
3. A device that cannot go back goes as late as the edges permit it: until then everything can be taken back. One that only
   does not wait for the decision goes before it, and after all others. From where on the way back is cut off is a note.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from gateway.fleet.plan_members import Offer, Player, cast_members, judge_players, named
from gateway.fleet.plan_order import Graph, Link, late_edges
from gateway.fleet.plan_rules import device_limits, group_edges, requirement_edges
from gateway.fleet.schedule import Device, DeviceLimit, Edge, Finding, Obstacle, PlanRefused, Revert, Schedule
from update.plans.plan import ReleasePlan


def make_schedule(
    plan: ReleasePlan,
    devices: Sequence[Device],
    offers: Mapping[str, Offer],
    interlocks: Collection[str] | None = None,
) -> Schedule | PlanRefused:
    """The order of `plan` among all `devices` of the site, or every reason why there is none.

    `offers` is what the plan's repository lists, by path; `interlocks` are the names of those that the site has (None: not
    asked for).
    """
    players, findings = cast_members(plan, devices, offers)
    required, broken = requirement_edges(plan, players)
    limits, stuck = device_limits(plan, players)
    findings = (*findings, *judge_players(plan, players, offers, interlocks), *broken, *stuck)
    moving = [each for each in players if each.moves]
    edges = (*required, *group_edges(players))
    graph = Graph((each.id for each in moving), edges)
    if cycle := graph.cycle():
        findings = (*findings, _cycle(cycle))
    if findings:
        return PlanRefused(plan.name, plan.version, findings)
    edges += tuple(late_edges(graph, {each.id: each.late for each in moving}))
    return _schedule(plan, players, edges, limits)


def _schedule(plan: ReleasePlan, players: Sequence[Player], edges: tuple[Edge, ...], limits: tuple[DeviceLimit, ...]) -> Schedule:
    scheduled = {each.id: each.scheduled(plan.interlocks) for each in players}
    moving = {each.id: each for each in players if each.moves}
    steps = Graph(moving, edges).steps(limits)
    still = [each for each in players if not each.moves]
    made = Schedule(
        plan=plan.name,
        version=plan.version,
        steps=tuple(tuple(scheduled[each] for each in step) for step in steps),
        settled=tuple(scheduled[each.id] for each in still if each.member.bundle is not None),
        watched=tuple(scheduled[each.id] for each in still if each.member.bundle is None),
        edges=edges,
        limits=limits,
    )
    return replace(made, notes=tuple(_notes(made, moving)))


def _notes(schedule: Schedule, moving: Mapping[str, Player]) -> Iterator[str]:
    """What people should know of the way back before they begin."""
    for number, step in enumerate(schedule.steps, 1):
        final = [each.id for each in step if each.revert is Revert.NONE]
        if final:
            yield f"step {number}: {named(final)} cannot go back; once it was tried only completion is left"
        eager = [each.id for each in step if not each.hold and each.revert is not Revert.NONE]
        if eager:
            yield f"step {number}: {named(eager)} does not wait for the decision; going back is a new order of what it ran before"
    flashed = sorted(each for each, player in moving.items() if player.revert is Revert.RE_FLASH)
    if flashed:
        yield f"{named(flashed)} goes back only by writing the previous image again, which must be kept here"


def _cycle(links: Sequence[Link]) -> Finding:
    ids = tuple(link.before for link in links)
    chain = "; ".join(f"{link.before} before {link.after} ({link.edge.reason})" for link in links)
    message = f"no order exists: {chain}; loosen one of these, or bring one of the devices to a version in between first"
    requirements = ", ".join(dict.fromkeys(link.edge.reason for link in links))
    return Finding(Obstacle.CYCLE, message, ids, requirements)
