"""The planner against brute force: every order and every mix of small sites is tried."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, permutations
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.fleet.plan import make_schedule
from gateway.fleet.plan_members import Offer
from gateway.fleet.schedule import Device, Obstacle, PlanRefused, Revert, Schedule
from tests.builders.plans import device, member, offers, plan, required
from update.plans.plan import Limit, ReleasePlan, Requirement
from update.plans.ranges import Condition

ROLES = ("axis", "board", "cpu")
LINES = ("a", "b")
LIKELY = ((">= 2", ">= 2"), ("== 2.*", "== 2"), ("< 2", "< 2"), ("== 1", "<= 1"), (">= 1", "== 2"))
RANGES = ("== 1", "== 2", ">= 2", "< 3", "<= 1", "!= 2", ">= 1")


@st.composite
def sites(draw: st.DrawFn) -> tuple[ReleasePlan, list[Device]]:
    """Roles that mostly go from 1 to 2, and requirements that mostly let their versions go together somehow."""
    targets = {role: draw(st.sampled_from(["2", "2", "2", "2", "2", "1", "3", None])) for role in ROLES}
    names = [*ROLES, *draw(st.lists(st.sampled_from(ROLES), max_size=2))]
    devices = [
        device(
            f"{role}-{number}",
            draw(st.sampled_from(["1", "1", "1", "1", "1", "1", "2", "3"])),
            line=draw(st.sampled_from(LINES)),
            hold=draw(st.sampled_from([True, True, False])),
            revert=draw(st.sampled_from([Revert.SWITCH, Revert.SWITCH, Revert.NONE])),
        )
        for number, role in enumerate(names)
    ]
    requirements = tuple(draw(st.lists(_requirements(), min_size=1, max_size=4)))
    limits = tuple(
        Limit((draw(st.sampled_from(ROLES)),), at_most=draw(st.integers(1, 2))) for _ in range(draw(st.integers(0, 1)))
    )
    groups = {role: draw(st.sampled_from([None, None, 10, 20])) for role in ROLES}
    members = [replace(member(role, targets[role], group=groups[role]), least=0) for role in ROLES]
    return plan(*members, requirements=requirements, limits=limits), devices


@st.composite
def _requirements(draw: st.DrawFn) -> Requirement:
    one, other = draw(st.permutations(ROLES))[:2]
    need, given_ = draw(
        st.sampled_from(LIKELY) | st.sampled_from(LIKELY) | st.tuples(st.sampled_from(RANGES), st.sampled_from([*RANGES, None]))
    )
    return required(f"{one} {need}", None if given_ is None else f"{other} {given_}", draw(st.sampled_from(["", "", "line"])))


class Site:
    """What really is, device by device and mix by mix, without any of the planner's short cuts."""

    def __init__(self, wanted: ReleasePlan, devices: Sequence[Device]) -> None:
        self.wanted = wanted
        self.devices = {each.id: each for each in devices}
        self.moving = {each.id for each in devices if self.target(each.id) not in {None, each.version}}

    def target(self, name: str) -> str | None:
        bundle = self.wanted.member(name.partition("-")[0]).bundle
        return None if bundle is None else bundle.version

    def version(self, name: str, new: frozenset[str]) -> str:
        target = self.target(name)
        return target if name in new and target is not None else self.devices[name].version

    def allowed(self, new: frozenset[str]) -> bool:
        return all(self._keeps(new, each.need, each.given, each.per) for each in self.wanted.requirements)

    def _keeps(self, new: frozenset[str], need: Condition, given_: Condition | None, per: str) -> bool:
        for one in self._of(need.member):
            if need.range.admits(self.version(one, new)):
                continue
            others = [None] if given_ is None else [each for each in self._of(given_.member) if self._together(one, each, per)]
            for other in others:
                if other is None or given_ is None or given_.range.admits(self.version(other, new)):
                    return False
        return True

    def _of(self, role: str) -> list[str]:
        return [each for each in self.devices if each.startswith(f"{role}-")]

    def _together(self, one: str, other: str, per: str) -> bool:
        return not per or self.devices[one].attributes[per] == self.devices[other].attributes[per]

    def group(self, name: str) -> int | None:
        return self.wanted.member(name.partition("-")[0]).group

    def orders(self) -> Iterator[tuple[str, ...]]:
        """Every order that never leaves what is allowed, and takes groups as they are numbered."""
        for order in permutations(sorted(self.moving)):
            groups = [each for each in map(self.group, order) if each is not None]
            mixes = [frozenset(order[:count]) for count in range(len(order) + 1)]
            if groups == sorted(groups) and all(map(self.allowed, mixes)):
                yield order


def subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))


def made(wanted: ReleasePlan, devices: Sequence[Device]) -> Schedule | PlanRefused:
    listed: Mapping[str, Offer] = offers(wanted)
    return make_schedule(wanted, devices, listed)


@given(sites())
@settings(max_examples=100, deadline=None)
def test_there_is_a_schedule_exactly_if_any_order_exists(site: tuple[ReleasePlan, list[Device]]) -> None:
    real, found = Site(*site), made(*site)
    exists = any(True for _ in real.orders())
    obstacles = (
        {str(each.obstacle) for each in found.findings} if isinstance(found, PlanRefused) else {edge.kind for edge in found.edges}
    )
    event(f"{'no order' if not exists else 'an order'}: {', '.join(sorted(obstacles)) or 'any'}")
    assert isinstance(found, Schedule) is exists
    if isinstance(found, PlanRefused):
        assert {each.obstacle for each in found.findings} <= {Obstacle.REQUIREMENT, Obstacle.CYCLE}


@given(sites())
@settings(max_examples=100, deadline=None)
def test_every_mix_on_the_way_is_allowed_and_every_device_that_must_change_does(site: tuple[ReleasePlan, list[Device]]) -> None:
    real, found = Site(*site), made(*site)
    if isinstance(found, PlanRefused):
        return
    new: frozenset[str] = frozenset()
    for step in found.steps:
        assert step
        assert all(real.allowed(new.union(some)) for some in subsets([each.id for each in step]))
        new = new.union(each.id for each in step)
    assert sorted(each.id for step in found.steps for each in step) == sorted(real.moving)
    assert {each.id for each in (*found.settled, *found.watched)} == real.devices.keys() - real.moving


@given(sites())
@settings(max_examples=100, deadline=None)
def test_groups_ascend_and_limits_are_kept_in_every_step(site: tuple[ReleasePlan, list[Device]]) -> None:
    real, found = Site(*site), made(*site)
    if isinstance(found, PlanRefused):
        return
    numbers = [[number for each in step if (number := real.group(each.id)) is not None] for step in found.steps]
    assert all(len({*each}) <= 1 for each in numbers)
    assert sorted(chain(*numbers)) == list(chain(*numbers))
    for limit in site[0].limits:
        assert all(sum(each.member in limit.members for each in step) <= (limit.at_most or 0) for step in found.steps)


@given(sites())
@settings(max_examples=100, deadline=None)
def test_what_cannot_go_back_goes_after_all_that_may_go_before_it(site: tuple[ReleasePlan, list[Device]]) -> None:
    real, found = Site(*site), made(*site)
    if isinstance(found, PlanRefused):
        return
    orders = list(real.orders())
    at = {each.id: number for number, step in enumerate(found.steps) for each in step}
    for late in real.moving:
        if real.devices[late].revert is not Revert.NONE:
            continue
        for other in real.moving:
            must_follow = all(order.index(late) < order.index(other) for order in orders)
            if real.devices[other].revert is not Revert.NONE and not must_follow:
                follows_one = any(
                    all(order.index(each) < order.index(other) for order in orders)
                    for each in real.moving
                    if real.devices[each].revert is Revert.NONE
                )
                assert follows_one or at[other] < at[late]


@given(sites(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_going_back_in_descending_order_around_what_is_stuck_stays_allowed(
    site: tuple[ReleasePlan, list[Device]], random: Random
) -> None:
    real, found = Site(*site), made(*site)
    if isinstance(found, PlanRefused) or not real.moving:
        return
    order = [each.id for step in found.steps for each in step]
    new = frozenset(order[: random.randint(1, len(order))])
    stuck = {each for each in new if random.random() < 0.3}
    kept = found.kept_with(stuck)
    assert stuck <= kept <= new
    for step in found.reverse():
        going = [each.id for each in step if each.id in new and each.id not in kept]
        for some in subsets(going):
            assert real.allowed(new.difference(some))
        for each in going:
            assert not found.waits_for(each, new)
        new = new.difference(going)
    assert new == kept
    assert real.allowed(new)


@given(sites())
@settings(max_examples=100, deadline=None)
def test_a_device_waits_exactly_for_those_that_forbid_its_old_version(site: tuple[ReleasePlan, list[Device]]) -> None:
    real, found = Site(*site), made(*site)
    if isinstance(found, PlanRefused):
        return
    for some in map(frozenset, subsets(sorted(real.moving))):
        if not real.allowed(some):
            continue
        for each in some:
            assert bool(found.waits_for(each, some)) is not real.allowed(some - {each})
