"""`ONLY=planner`: how long the order of 500 devices takes that require versions of one another.

Fifty lines of ten devices (a controller, motors, conveyors of which two stay up, a radio, an FPGA), twelve requirements by
line and across all of them; every device has a version of its own before. There is no peer that does this: the row stands
beside the goal of one second.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from gateway.fleet.plan import make_schedule
from gateway.fleet.schedule import Device, Schedule
from tests.benchmarks.measure import Row
from tests.builders.plans import device, member, offers, plan, required
from update.plans.plan import Limit, ReleasePlan

_LINES = 50
_ROLES = ("controller", "motor", "motor", "motor", "motor", "conveyor", "conveyor", "conveyor", "radio", "fpga")
_ROUNDS = 5
_GOAL_S = 1.0


def rows(_work: Path) -> Iterator[Row]:
    """One row."""
    wanted, devices = _plant()
    listed = offers(wanted)
    found = make_schedule(wanted, devices, listed)
    if not isinstance(found, Schedule):
        raise found.error()
    ours = _seconds(lambda: make_schedule(wanted, devices, listed))
    pairs = sum(len(edge.before) * len(edge.after) for edge in found.edges)
    note = f"{len(devices)} devices, {len(wanted.requirements)} requirements, {pairs} pairs in order, {len(found.steps)} steps"
    yield Row("planner-500", ours, _GOAL_S, "one second", "s", goal=1.0, note=note)


def _plant() -> tuple[ReleasePlan, list[Device]]:
    devices = [
        device(f"{role}-{line}-{number}", f"1.{line}.{number}", line=str(line))
        for line in range(_LINES)
        for number, role in enumerate(_ROLES)
    ]
    lines = [
        required("motor == 2.*", "controller == 2.*", per="line"),
        required("fpga >= 2", "motor >= 2", per="line"),
        required("conveyor >= 2", "controller >= 2", per="line"),
        required("fpga >= 2", "conveyor >= 2", per="line"),
        required("radio < 2", "controller < 2", per="line"),
        required("radio < 2", "motor < 2", per="line"),
    ]
    across = [
        required("motor >= 2", "controller >= 2"),
        required("fpga >= 2", "conveyor == 2.*"),
        required("fpga >= 1.0"),
        required("controller < 2", "motor < 2"),
        required("radio < 2", "conveyor < 2"),
        required("fpga >= 2", "radio == 2.*"),
    ]
    members = [member(role, "2.0") for role in dict.fromkeys(_ROLES)]
    limits = (Limit(("conveyor",), keep_up=2, per="line"),)
    return plan(*members, requirements=(*lines, *across), limits=limits), devices


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)
