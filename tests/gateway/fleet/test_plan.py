"""The planner's orders and refusals, one by one; `test_plan_properties` holds it against brute force."""

from dataclasses import replace
from itertools import chain

import pytest

from gateway.fleet.plan import make_schedule
from gateway.fleet.plan_members import Offer
from gateway.fleet.schedule import Device, Obstacle, PlanRefused, Revert, Schedule
from tests.builders.plans import device, member, offers, plan, required
from update.digest import digest_of
from update.errors import PlanRefusedError
from update.identity import Hardware
from update.plans.plan import Accept, Limit, ReleasePlan

NOTHING = frozenset[Accept]()
LINE = plan(
    member("controller", "5.0"),
    member("motor", "2.1"),
    replace(member("radio", None), least=0),
    requirements=(required("motor >= 2.1, < 3", "controller == 5.*"),),
)
DEVICES = (device("controller-1", "4.2"), device("motor-1", "1.9"), device("motor-2", "1.9"), device("radio-1", "7"))


def steps(found: Schedule | PlanRefused) -> list[list[str]]:
    assert isinstance(found, Schedule), found
    return [[each.id for each in step] for step in found.steps]


def refusal(wanted: ReleasePlan, *devices: Device, interlocks: set[str] | None = None) -> tuple[set[Obstacle], str]:
    found = make_schedule(wanted, devices, offers(wanted), interlocks)
    assert isinstance(found, PlanRefused)
    with pytest.raises(PlanRefusedError) as caught:
        raise found.error()
    return {each.obstacle for each in found.findings}, str(caught.value)


def test_what_is_required_comes_first_and_goes_back_last() -> None:
    found = make_schedule(LINE, DEVICES, offers(LINE))
    assert steps(found) == [["motor-1", "motor-2"], ["controller-1"]]
    assert isinstance(found, Schedule)
    assert [[each.id for each in step] for step in found.reverse()] == [["controller-1"], ["motor-1", "motor-2"]]
    assert [each.id for each in found.watched] == ["radio-1"]
    assert found.waits_for("motor-1", {"controller-1", "motor-2"}) == ("controller-1",)
    assert found.kept_with({"controller-1"}) == {"controller-1", "motor-1", "motor-2"}
    assert [edge.reason for edge in found.edges] == ["motor >= 2.1, < 3 while controller == 5.*"]


def test_what_runs_already_is_only_looked_at() -> None:
    found = make_schedule(LINE, (*DEVICES[:2], device("motor-2", "2.1")), offers(LINE))
    assert steps(found) == [["motor-1"], ["controller-1"]]
    assert isinstance(found, Schedule)
    assert [each.id for each in found.settled] == ["motor-2"]


def test_a_digest_tells_more_than_a_version() -> None:
    other = replace(DEVICES[1], version="2.1", sha256=digest_of(b"built by somebody else"))
    assert "motor-1" in chain(*steps(make_schedule(LINE, (*DEVICES[:1], other), offers(LINE))))
    sibling = replace(other, version="")
    listed = dict(offers(LINE))
    bundle = LINE.member("motor").bundle
    assert bundle is not None
    listed[bundle.path] = replace(listed[bundle.path], digests=frozenset({digest_of(b"built by somebody else")}))
    assert steps(make_schedule(LINE, (*DEVICES[:1], sibling), listed)) == [["controller-1"]]


def test_only_what_belongs_together_is_compared() -> None:
    wanted = replace(LINE, requirements=(required("motor >= 2.1", "controller == 5.*", per="line"),))
    devices = [
        device("controller-1", "4.2", line="a"),
        device("controller-2", "4.2", line="b"),
        device("motor-1", "1.9", line="a"),
    ]
    assert steps(make_schedule(wanted, devices, offers(wanted))) == [["controller-2", "motor-1"], ["controller-1"]]


def test_a_limit_divides_a_step() -> None:
    wanted = plan(member("conveyor", "2"), member("press", "2"), limits=(Limit(("conveyor",), at_most=1),))
    devices = [*(device(f"conveyor-{number}", "1") for number in range(3)), device("press-1", "1")]
    assert steps(make_schedule(wanted, devices, offers(wanted))) == [["conveyor-0", "press-1"], ["conveyor-1"], ["conveyor-2"]]


def test_what_stays_up_is_counted_with_those_that_do_not_change() -> None:
    wanted = plan(member("conveyor", "2"), limits=(Limit(("conveyor",), keep_up=2, per="line"),))
    devices = [device(f"conveyor-{number}", "2" if number > 1 else "1", line="a") for number in range(4)]
    found = make_schedule(wanted, devices, offers(wanted))
    assert steps(found) == [["conveyor-0", "conveyor-1"]]
    assert isinstance(found, Schedule)
    assert [(limit.at_most, len(limit.devices)) for limit in found.limits] == [(2, 4)]
    assert refusal(wanted, *devices[:2])[0] == {Obstacle.LIMIT}


def test_groups_ascend_and_requirements_divide_them() -> None:
    wanted = plan(
        member("motor", "2.1", group=20),
        member("controller", "5.0", group=20),
        member("press", "2", group=10),
        requirements=LINE.requirements,
    )
    found = make_schedule(wanted, (*DEVICES[:2], device("press-1", "1")), offers(wanted))
    assert steps(found) == [["press-1"], ["motor-1"], ["controller-1"]]


def test_groups_against_a_requirement_are_refused_with_both() -> None:
    wanted = plan(member("motor", "2.1", group=20), member("controller", "5.0", group=10), requirements=LINE.requirements)
    obstacles, words = refusal(wanted, *DEVICES[:2])
    assert obstacles == {Obstacle.CYCLE}
    assert "controller-1 before motor-1 (group 10 before group 20)" in words
    assert "motor-1 before controller-1 (motor >= 2.1, < 3 while controller == 5.*)" in words


def test_two_devices_that_would_have_to_change_in_one_moment_are_a_cycle() -> None:
    both = (required("motor == 2.*", "controller == 5.*"), required("controller == 5.*", "motor == 2.*"))
    obstacles, words = refusal(replace(LINE, requirements=both), *DEVICES[:2])
    assert obstacles == {Obstacle.CYCLE}
    assert words.count(" before ") == 2


def test_a_long_cycle_is_named_whole_and_nothing_else_is() -> None:
    ring = tuple(required(f"{one} == 2", f"{other} == 2") for one, other in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "z")])
    wanted = plan(*(member(name, "2") for name in "abcz"), requirements=ring)
    found = make_schedule(wanted, [device(f"{name}-1", "1") for name in "abcz"], offers(wanted))
    assert isinstance(found, PlanRefused)
    assert sorted(found.findings[0].devices) == ["a-1", "b-1", "c-1"]


def test_what_does_not_hold_now_or_would_not_at_the_end_is_told_apart() -> None:
    obstacles, words = refusal(LINE, device("controller-1", "5.3"), device("motor-1", "1.9"))
    assert obstacles == {Obstacle.REQUIREMENT}
    assert "does not hold now: motor-1 at 1.9 beside controller-1 at 5.3" in words
    obstacles, words = refusal(replace(LINE, members=(LINE.members[0], member("motor", None), LINE.members[2])), *DEVICES)
    assert "would not hold at the end: motor-1, motor-2 at 1.9 beside controller-1 at 5.0" in words


def test_a_requirement_of_one_part_holds_always() -> None:
    always = replace(LINE, requirements=(required("radio >= 7"), required("motor != 2.1")))
    assert "would not hold at the end: motor-1, motor-2 at 2.1" in refusal(always, *DEVICES)[1]
    always = replace(LINE, requirements=(required("radio > 7"), required("motor >= 2")))
    words = refusal(always, *DEVICES)[1]
    assert "'radio > 7' does not hold now: radio-1 at 7" in words
    assert "'motor >= 2' does not hold now: motor-1, motor-2 at 1.9" in words


def test_what_cannot_go_back_waits_and_the_way_back_is_told() -> None:
    controller, motor, _ = LINE.members
    wanted = replace(LINE, members=(controller, motor, member("radio", "8")))
    devices = (DEVICES[0], replace(DEVICES[1], revert=Revert.NONE), DEVICES[2], DEVICES[3])
    found = make_schedule(wanted, devices, offers(wanted))
    assert steps(found) == [["motor-2", "radio-1"], ["motor-1"], ["controller-1"]]
    assert isinstance(found, Schedule)
    assert found.notes == ("step 2: motor-1 cannot go back; once it was tried only completion is left",)
    devices = (replace(DEVICES[0], revert=Revert.NONE), *DEVICES[1:])
    found = make_schedule(wanted, devices, offers(wanted))
    assert steps(found)[-1] == ["controller-1"]
    assert isinstance(found, Schedule)
    assert found.notes == ("step 2: controller-1 cannot go back; once it was tried only completion is left",)


def test_what_does_not_wait_goes_after_what_waits_and_before_what_cannot_go_back() -> None:
    wanted = plan(member("a", "2"), member("b", "2"), member("c", "2"))
    devices = (device("a-1", "1", revert=Revert.NONE), device("b-1", "1", hold=False), device("c-1", "1", revert=Revert.RE_FLASH))
    found = make_schedule(wanted, devices, offers(wanted))
    assert steps(found) == [["c-1"], ["b-1"], ["a-1"]]
    assert isinstance(found, Schedule)
    assert len(found.notes) == 3


@pytest.mark.parametrize(
    ("weak", "accept"),
    [
        (device("motor-1", "1.9", revert=Revert.NONE), Accept.NO_REVERT),
        (device("motor-1", "1.9", revert=Revert.RE_FLASH), Accept.RE_FLASH),
        (device("motor-1", "1.9", hold=False), Accept.NO_HOLD),
        (replace(device("motor-1", "1.9"), serial_recovery=True), Accept.SERIAL_RECOVERY),
    ],
)
def test_what_a_device_cannot_do_is_accepted_by_name_or_refused(weak: Device, accept: Accept) -> None:
    everything_else = plan(member("motor", "2.1", accepts=frozenset(Accept) - {accept}))
    obstacles, words = refusal(everything_else, weak)
    assert obstacles == {Obstacle.CAPABILITY}
    assert f"accept {accept} for member motor" in words
    accepted = plan(member("motor", "2.1", accepts=frozenset({accept})))
    assert steps(make_schedule(accepted, [weak], offers(accepted))) == [["motor-1"]]
    runs = plan(member("motor", "1.9", accepts=NOTHING))
    assert steps(make_schedule(runs, [weak], offers(runs))) == []


def test_devices_that_are_missing_or_play_two_parts_are_named() -> None:
    wanted = plan(member("motor", "2.1", "motor-1", "motor-9"), member("drive", "2.1", "motor-1"))
    wanted = replace(wanted, members=(replace(wanted.members[0], least=2), wanted.members[1]))
    obstacles, words = refusal(wanted, device("motor-1", "1"))
    assert obstacles == {Obstacle.SELECTION}
    assert "needs at least 2 device(s), 1 are here; not found or not fitting: motor-9" in words
    assert "node motor-1 is selected by the members motor and drive" in words


def test_other_hardware_assigners_and_interlocks_are_refused_together() -> None:
    strange = replace(device("motor-1", "1.9"), hardware=Hardware.parse("other:1"), assigner="hawkbit:company")
    wanted = replace(plan(member("motor", "2.1")), interlocks=("stopped",))
    obstacles, words = refusal(wanted, strange, interlocks={"open"})
    assert obstacles == {Obstacle.HARDWARE, Obstacle.ASSIGNER, Obstacle.INTERLOCK}
    assert "the plan needs the interlock stopped; configured here: open" in words
    assert refusal(plan(member("motor", "2.1")), replace(device("motor-1", "1"), hardware=None))[0] == {Obstacle.UNKNOWN}


def test_silence_about_a_version_or_an_attribute_is_no_answer() -> None:
    assert refusal(LINE, DEVICES[0], device("motor-1", ""))[0] == {Obstacle.UNKNOWN}
    per = replace(LINE, requirements=(required("motor >= 2.1", "controller == 5.*", per="line"),))
    assert "told no attribute 'line'" in refusal(per, *DEVICES[:2])[1]
    unneeded = plan(member("motor", "2.1"))
    assert steps(make_schedule(unneeded, [device("motor-1", "")], offers(unneeded))) == [["motor-1"]]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (None, "does not list"),
        ({"sha256": digest_of(b"other")}, "lists it with"),
        ({"version": "9"}, "lists it as 9"),
    ],
)
def test_a_bundle_that_is_not_the_planned_one_is_refused(listed: dict[str, str] | None, words: str) -> None:
    wanted = plan(member("motor", "2.1"))
    ((path, offer),) = offers(wanted).items()
    found = make_schedule(wanted, [device("motor-1", "1")], {} if listed is None else {path: _changed(offer, listed)})
    assert isinstance(found, PlanRefused)
    assert [each.obstacle for each in found.findings] == [Obstacle.BUNDLE]
    assert words in found.findings[0].message


def _changed(offer: Offer, values: dict[str, str]) -> Offer:
    return Offer(
        digest_of(values["sha256"].encode()) if "sha256" in values else offer.sha256,
        values.get("version", offer.version),
        offer.hw_ids,
        offer.digests,
    )


def test_interlocks_of_the_plan_and_of_the_member_reach_each_device() -> None:
    wanted = replace(plan(replace(member("motor", "2.1"), interlocks=("cold", "stopped"))), interlocks=("stopped",))
    found = make_schedule(wanted, [device("motor-1", "1")], offers(wanted), {"cold", "stopped"})
    assert isinstance(found, Schedule)
    assert found.steps[0][0].interlocks == ("stopped", "cold")
