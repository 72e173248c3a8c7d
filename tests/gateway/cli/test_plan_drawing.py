"""What people read of a release plan before it begins."""

from dataclasses import replace

from gateway.cli import plan_drawing
from gateway.fleet.plan import make_schedule
from gateway.fleet.schedule import Device, PlanRefused, Revert, Schedule
from tests.builders.plans import device, member, offers, plan, required
from update.plans.plan import Accept, Limit

LINE = plan(
    member("controller", "5.0"),
    member("motor", "2.1"),
    replace(member("fpga", "3.0"), accepts=frozenset({Accept.NO_REVERT})),
    replace(member("radio", None), least=0),
    requirements=(required("motor >= 2.1, < 3", "controller == 5.*"),),
    limits=(Limit(("motor",), at_most=1),),
)
DEVICES = (
    device("controller-1", "4.2"),
    device("motor-1", "1.9"),
    device("motor-2", "1.9"),
    replace(device("fpga-1", "2.0"), revert=Revert.NONE),
    device("radio-1", "7"),
)


def made(*devices: Device) -> Schedule:
    found = make_schedule(LINE, devices or DEVICES, offers(LINE))
    assert isinstance(found, Schedule), found
    return found


def test_the_outline_names_each_device_with_what_it_runs_and_will_run() -> None:
    assert plan_drawing.heading(made(), "plant").endswith(" of plant: 4 devices in 4 steps, 1 only watched")
    assert [line.split() for line in plan_drawing.outline(made())] == [
        ["step", "1", "motor-1", "motor", "1.9", "->", "2.1"],
        ["step", "2", "motor-2", "motor", "1.9", "->", "2.1"],
        ["step", "3", "controller-1", "controller", "4.2", "->", "5.0"],
        ["step", "4", "fpga-1", "fpga", "2.0", "->", "3.0"],
    ]


def test_the_explanation_gives_a_reason_between_the_steps_the_limit_the_way_back_and_the_notes() -> None:
    lines = list(plan_drawing.explained(made()))
    reason = "because motor-1, motor-2 before controller-1: motor >= 2.1, < 3 while controller == 5.* (requirement)"
    place = next(number for number, line in enumerate(lines) if reason in line)
    assert any(line.startswith("step 2") for line in lines[:place])
    assert lines[place + 2].startswith("step 3")
    text = "\n".join(lines)
    assert "limit: at most 1 of motor-1, motor-2 at the same moment" in text
    assert "the way back, on any failure before the decision: fpga-1, then controller-1, then motor-2, then motor-1" in text
    assert "fpga-1        fpga        2.0 -> 3.0  CANNOT GO BACK" in text
    assert "note: step 4: fpga-1 cannot go back; once it was tried only completion is left" in text
    assert "only watched: never changed, and what the requirements say of it holds: radio-1 (7)" in text


def test_what_runs_its_release_already_is_named_and_in_no_step() -> None:
    lines = list(plan_drawing.explained(made(*DEVICES[:2], device("motor-2", "2.1"), *DEVICES[3:])))
    assert "there already: probed with the others before the decision: motor-2 (2.1)" in lines
    assert not any(line.startswith("step") and "motor-2" in line for line in lines)


def test_a_refusal_shows_every_finding() -> None:
    wanted = replace(LINE, requirements=(*LINE.requirements, required("controller >= 5", "motor >= 2")))
    found = make_schedule(wanted, DEVICES[:-2], offers(wanted))
    assert isinstance(found, PlanRefused)
    lines = list(plan_drawing.refusal(found))
    assert [line.strip().split(":")[0] for line in lines[1:]] == [each.obstacle for each in found.findings]
    assert {"cycle", "selection"} <= {each.obstacle for each in found.findings}
    assert "nothing was touched" in lines[0]


def test_mermaid_has_a_box_for_each_device_and_reasons_on_its_arrows() -> None:
    lines = list(plan_drawing.mermaid(made()))
    assert lines[0] == "flowchart TD"
    assert sum("<br/>" in line and "d0[" in line for line in lines) == 4
    arrow = next(line for line in lines if line.startswith("  step2 -->"))
    assert "motor #gt;= 2.1, #lt; 3 while controller == 5.*" in arrow
    assert arrow.endswith('"| step3')
    assert lines[-1] == "  step4 --> decision"


def test_control_characters_of_nodes_do_not_reach_the_terminal() -> None:
    hostile = replace(DEVICES[0], version='4\x1b[2J"2')
    text = "\n".join((*plan_drawing.explained(made(hostile, *DEVICES[1:])), *plan_drawing.mermaid(made(hostile, *DEVICES[1:]))))
    assert "\x1b" not in text
    assert "#quot;" in text
