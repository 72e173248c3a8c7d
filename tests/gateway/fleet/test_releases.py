from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from gateway.database.coordinated import Course
from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ClientKind, Commit, Release, Running
from gateway.fleet.coordinator import Coordinator
from gateway.fleet.nodes import Assigner, Order, release_of, wanted_content
from gateway.fleet.ownership import Ownership
from gateway.fleet.planning import SitePlanner
from gateway.fleet.presence import Presence
from gateway.fleet.progress import Progress
from gateway.fleet.release_states import ReleaseState
from gateway.fleet.releases import Releases
from gateway.fleet.telling import NOBODY
from tests.builders.fleet import Clock, Shelf, bundle, register
from tests.builders.line import Fault, SimulatedMember
from update.digest import digest_of
from update.errors import (
    AmbiguousError,
    AssignerError,
    NotFoundError,
    PlanError,
    PlanRefusedError,
    StateError,
    UnknownTargetError,
)
from update.plans.document import plan_bytes
from update.plans.plan import Accept, Deadlines, Limit, PlanBundle, PlanMember, ReleasePlan, Requirement, Selector
from update.plans.ranges import parse_condition
from update.trust.verified import TargetCustom, TargetInfo
from update.wire.attributes import CAN, HARDWARE
from update.wire.ddi import Mode

NAMES = ("ctl", "m1", "m2")
OLD, NEW = bundle("1.1", "board:1"), bundle("1.2", "board:1")
PLAN_PATH = "plans/line-7.plan.json"


@dataclass(slots=True)
class Gate:
    """An interlock of the site."""

    shut: bool = False
    read: list[str] = field(default_factory=list)

    async def first_shut(self, names: Sequence[str]) -> str:
        self.read += names
        return names[0] if names and self.shut else ""


@dataclass(slots=True)
class Plant:
    """A line of a controller and two motors, which the controller must precede, with all of the gateway's parts."""

    database: Database
    clock: Clock
    shelf: Shelf
    folder: Path
    gate: Gate
    progress: Progress
    presence: Presence
    devices: dict[str, SimulatedMember]

    @property
    def releases(self) -> Releases:
        planner = SitePlanner(self.database, self.shelf, self.find, {"gate"})
        return Releases(self.database, self.clock, planner, last_seen=self.presence.last_seen)

    def find(self, target: TargetInfo) -> Path | None:
        file = self.folder / target.base_name
        return file if file.exists() else None

    def publish(self, plan: ReleasePlan, path: str = PLAN_PATH) -> None:
        data = plan_bytes(plan)
        target = TargetInfo("plant", path, len(data), digest_of(data), TargetCustom(version=plan.version), "targets")
        (self.folder / target.base_name).write_bytes(data)
        self.shelf.content["plant"].append(target)

    def new(self) -> set[str]:
        """Who really runs the new version."""
        return {name for name, device in self.devices.items() if device.runs_new}

    async def start(self, release: str = "line-7") -> ReleaseState:
        return await self.releases.start(release, "", "uid 0", "spring")

    async def pass_time(self, ticks: int = 1) -> ReleaseState:
        for _ in range(ticks):
            self.clock.advance(10)
            for device in self.devices.values():
                await device.ask()
            coordinator = Coordinator(self.database, self.clock, self.gate, last_seen=self.presence.last_seen)
            await coordinator.advance()
        (state, *_) = await self.releases.states()
        return state

    async def until(self, phase: str) -> ReleaseState:
        for _ in range(300):
            if (state := await self.pass_time()).phase == phase:
                return state
        raise AssertionError(f"it was never {phase}")

    async def action(self, node: str) -> Action:
        async with self.database.reading() as transaction:
            return (await actions.latest(transaction))[node]


def line_plan(*, version: str = "7", accepts: frozenset[Accept] = frozenset(), interlocks: tuple[str, ...] = ()) -> ReleasePlan:
    wanted = PlanBundle(NEW.path, NEW.sha256, "1.2")
    members = (
        PlanMember("controller", Selector(nodes=("ctl",)), wanted, accepts=accepts),
        PlanMember("motor", Selector(nodes=("m1", "m2")), wanted, accepts=accepts, interlocks=interlocks, least=2),
    )
    needs = Requirement(parse_condition("controller >= 1.2"), parse_condition("motor >= 1.2"))
    one_by_one = Limit(("motor",), at_most=1)
    deadlines = Deadlines(prepare_s=600, activate_s=100, test_s=100, commit_s=100, revert_s=200, hold_s=400)
    return ReleasePlan("line", version, members, (needs,), (one_by_one,), deadlines)


@pytest.fixture
async def plant(database: Database, clock: Clock, tmp_path: Path) -> Plant:
    (folder := tmp_path / "content").mkdir()
    presence = Presence(database, clock)
    progress = Progress(database, clock, presence=presence)
    await register(database, clock, *NAMES, running=Running("1.1", OLD.sha256, "a"))
    new, old = release_of(NEW), release_of(OLD)
    devices = {name: SimulatedMember(name, new, old, Random(name), clock, progress) for name in NAMES}
    made = Plant(database, clock, Shelf({"plant": [OLD, NEW]}), folder, Gate(), progress, presence, devices)
    made.publish(line_plan())
    return made


def places(state: ReleaseState) -> dict[str, str]:
    return {member.node: member.place for member in state.members}


async def test_a_release_goes_through_its_steps_and_ends_complete(plant: Plant) -> None:
    begun = await plant.start()
    assert (begun.phase, begun.steps, begun.requested_by, begun.reason) == ("preparing", 3, "uid 0", "spring")
    assert [(each.node, each.step) for each in begun.members] == [("ctl", 1), ("m1", 2), ("m2", 3)]
    assert (await plant.action("ctl")).commit is Commit.PREPARE
    state = await plant.until("ended")
    assert (state.standing, state.decision, state.advice, state.broken) == ("complete", "commit", (), ())
    assert all(device.runs_new and device.confirmed for device in plant.devices.values())
    assert [each.words for each in state.remarks] == ["decided to complete the release", "ended complete"]
    async with plant.database.reading() as transaction:
        known = await nodes.several(transaction, NAMES)
    assert {node.running.version for node in known.values()} == {"1.2"}


async def test_the_motors_wait_for_the_controller_and_hold_longer_the_lower_they_are(plant: Plant) -> None:
    await plant.start()
    while (state := await plant.pass_time()).step == 1:
        assert not plant.devices["m1"].runs_new
    assert (state.phase, places(state)["ctl"]) == ("activating", "holding")
    holds = [(await plant.action(name)).hold for name in NAMES]
    assert [hold.hold_s for hold in holds if hold is not None] == [800, 600, 400]


async def test_one_that_fails_takes_all_back_and_it_is_said_why(plant: Plant) -> None:
    plant.devices["m2"].fault = Fault.TEST
    await plant.start()
    state = await plant.until("ended")
    assert (state.standing, state.decision) == ("reverted", "revert")
    assert state.why == "m2 does not run the new version: rolled-back: the new version did not pass its test"
    assert not any(device.runs_new for device in plant.devices.values())
    assert {member.course for member in state.members} == {Course.OLD}


async def test_what_a_stuck_member_needs_is_kept_and_people_are_told_what_to_do(plant: Plant) -> None:
    plant.devices["m1"].fault = Fault.REFUSE
    plant.devices["m2"].fault = Fault.TEST
    await plant.start()
    state = await plant.until("ended")
    assert state.standing == "inconsistent"
    assert {name: device.runs_new for name, device in plant.devices.items()} == {"ctl": True, "m1": True, "m2": False}
    assert plant.devices["ctl"].confirmed
    kept, stuck = state.advice
    assert kept.startswith("ctl stays on the new version: m1 could not go back and needs it")
    assert stuck.startswith("look at m1: it did not go back in 3 tries")
    assert "then order 1.1 for it" in stuck


async def test_one_that_goes_back_by_itself_after_the_decision_is_ordered_again(plant: Plant) -> None:
    plant.devices["m1"].fault = Fault.CONFIRM
    await plant.start()
    state = await plant.until("ended")
    assert (state.standing, plant.devices["m1"].runs_new) == ("complete", True)
    assert "m1 is ordered 1.2, try 1" in [each.words for each in state.remarks]
    assert plant.devices["m1"].fences == [1, 2]


async def test_a_mix_that_a_device_made_by_itself_is_shown_while_it_lasts(plant: Plant) -> None:
    await plant.start()
    await plant.until("probing")
    await plant.releases.pause(1, "uid 0")
    plant.devices["ctl"].fault, plant.devices["ctl"].draw = Fault.HOLD, Random(2)
    while not (state := await plant.pass_time()).broken:
        assert plant.devices["ctl"].asked < 200
    assert state.broken == (
        "m1 runs 1.2 while ctl is back on its old version",
        "m2 runs 1.2 while ctl is back on its old version",
    )
    await plant.releases.resume(1, "uid 0")
    ended = await plant.until("ended")
    assert (ended.standing, ended.broken) == ("reverted", ())


async def test_a_paused_release_tells_nobody_anything_and_no_deadline_runs(plant: Plant) -> None:
    await plant.start()
    paused = await plant.releases.pause(1, "uid 0: lunch")
    assert paused.standing == "preparing (paused)"
    state = await plant.pass_time(100)
    assert (state.phase, set(places(state).values())) == ("preparing", {"prepared"})
    await plant.releases.resume(1, "uid 0")
    assert (await plant.until("ended")).standing == "complete"


async def test_an_abort_takes_back_and_ends_a_pause(plant: Plant) -> None:
    await plant.start()
    await plant.until("probing")
    await plant.releases.pause(1, "uid 0")
    aborted = await plant.releases.abort(1, "uid 7: wrong week")
    assert (aborted.phase, aborted.paused, aborted.why) == ("reverting", None, "aborted by uid 7: wrong week")
    assert (await plant.until("ended")).standing == "reverted"
    assert not any(device.runs_new for device in plant.devices.values())


async def test_after_the_decision_there_is_no_abort(plant: Plant) -> None:
    await plant.start()
    await plant.until("committing")
    with pytest.raises(StateError, match=r"release 1 is committing: its decision \(commit\) has fallen, and never changes"):
        await plant.releases.abort(1, "uid 0")
    assert (await plant.until("ended")).standing == "complete"
    for command in (plant.releases.pause, plant.releases.resume, plant.releases.abort):
        with pytest.raises(StateError, match="release 1 has ended: complete"):
            await command(1, "uid 0")
    with pytest.raises(NotFoundError, match="there is no coordinated release 9"):
        await plant.releases.pause(9, "uid 0")


async def test_an_interlock_is_waited_for_and_read_again_before_the_way_back(plant: Plant) -> None:
    plant.publish(line_plan(version="8", interlocks=("gate",)), "plans/line-8.plan.json")
    plant.devices["m2"].fault = Fault.TEST
    plant.gate.shut = True
    await plant.start("line-8")
    state = await plant.until("activating")
    state = await plant.pass_time(10)
    assert (state.standing, places(state)["ctl"]) == ("activating step 2 of 3 (interlock gate is shut)", "holding")
    plant.gate.shut = False
    while not plant.devices["m2"].down:
        await plant.pass_time()
    plant.gate.shut = True
    state = await plant.pass_time(20)
    assert (state.standing, plant.devices["m1"].runs_new) == ("reverting step 2 of 3 (interlock gate is shut)", True)
    plant.gate.shut = False
    assert (await plant.until("ended")).standing == "reverted"


async def test_an_interlock_that_stays_shut_has_the_release_go_back(plant: Plant) -> None:
    plant.publish(line_plan(version="8", interlocks=("gate",)), "plans/line-8.plan.json")
    plant.gate.shut = True
    await plant.start("line-8")
    state = await plant.until("ended")
    assert state.standing == "reverted"
    assert state.why == "m1 could not be told to begin within 200 s: interlock gate is shut"


async def test_a_client_that_cannot_hold_takes_part_where_the_plan_accepts_it(plant: Plant) -> None:
    async with plant.database.writing() as transaction:
        await nodes.set_kind(transaction, "m1", ClientKind.SWUPDATE, fixed=True)
    plant.devices["m1"].hold = False
    with pytest.raises(PlanRefusedError, match="m1"):
        await plant.start()
    plant.publish(line_plan(version="8", accepts=frozenset({Accept.NO_HOLD})), "plans/line-8.plan.json")
    begun = await plant.start("line-8")
    (last,) = [member for member in begun.members if member.node == "m1"]
    assert (last.step, last.action) == (3, 0)
    assert (await plant.until("ended")).standing == "complete"


async def test_such_a_client_goes_back_by_an_order_of_what_it_ran_before(plant: Plant) -> None:
    async with plant.database.writing() as transaction:
        await nodes.set_kind(transaction, "m1", ClientKind.SWUPDATE, fixed=True)
    plant.devices["m1"].hold = False
    plant.publish(line_plan(version="8", accepts=frozenset({Accept.NO_HOLD})), "plans/line-8.plan.json")
    await plant.start("line-8")
    assert OLD.sha256 in await wanted_content(plant.database)
    while "m1" not in plant.new():
        await plant.pass_time()
    await plant.releases.abort(1, "uid 0")
    assert (await plant.until("ended")).standing == "reverted"
    assert plant.new() == set()
    assert (await plant.action("m1")).release == release_of(OLD)
    assert OLD.sha256 not in await wanted_content(plant.database)


async def test_what_cannot_go_back_and_was_tried_leaves_only_completion(plant: Plant) -> None:
    async with plant.database.writing() as transaction:
        await nodes.set_kind(transaction, "m1", ClientKind.SWUPDATE, fixed=True)
        unknown = digest_of(b"by hand")
        await nodes.describe(transaction, "m1", attributes={}, hardware=None, running=Running("1.1", unknown, "a"))
        await nodes.note_attributes(transaction, "m1", {}, (await nodes.several(transaction, ["m2"]))["m2"].hardware)
    plant.devices["m1"].hold = False
    plant.publish(line_plan(version="8", accepts=frozenset({Accept.NO_HOLD, Accept.NO_REVERT})), "plans/line-8.plan.json")
    await plant.start("line-8")
    while (await plant.pass_time()).step != 3 or plant.devices["m1"].wants is None:
        assert plant.devices["m1"].asked < 200
    state = await plant.releases.abort(1, "uid 0")
    assert (state.decision, state.why) == ("commit", "aborted by uid 0; m1 cannot go back, so that only completion is left")
    assert (await plant.until("ended")).standing == "complete"


async def test_nodes_of_a_release_take_no_other_order_until_it_is_over(plant: Plant) -> None:
    await plant.start()
    order = Order("1.1", ("m1",), "uid 0", reason="x", override=True)
    with pytest.raises(AssignerError, match="node m1 is part of coordinated release 1, which is under way"):
        await Assigner(plant.database, plant.shelf, plant.clock).assign(order)
    ownership = Ownership(plant.database, plant.clock, NOBODY)
    with pytest.raises(AssignerError, match="part of coordinated release 1"):
        await ownership.cancel("m1", "x")
    with pytest.raises(AssignerError, match="part of coordinated release 1"):
        await plant.start()
    await plant.until("ended")
    (made,) = await Assigner(plant.database, plant.shelf, plant.clock).assign(order)
    assert made.action is not None


async def test_nodes_of_others_and_nodes_with_an_order_are_refused(plant: Plant) -> None:
    await Assigner(plant.database, plant.shelf, plant.clock).assign(Order("1.2", ("m1",), "uid 0"))
    with pytest.raises(StateError, match="m1 has an order that has not ended"):
        await plant.start()
    async with plant.database.writing() as transaction:
        await nodes.set_assigner(transaction, "m2", "hawkbit:west")
    with pytest.raises((PlanRefusedError, AssignerError), match="m2"):
        await plant.start()
    assert await plant.releases.states() == ()


async def test_an_unknown_plan_an_ambiguous_one_and_one_that_is_not_here_are_refused_by_name(plant: Plant) -> None:
    with pytest.raises(UnknownTargetError, match=r"no release plan is called 'line-9'; there are: plant/plans/line-7\.plan"):
        await plant.start("line-9")
    plant.publish(line_plan(), "plans/other/line-7.plan.json")
    with pytest.raises(AmbiguousError, match="several release plans are called '7'"):
        await plant.start("7")
    (plant.folder / "line-7.plan.json").unlink()
    with pytest.raises(NotFoundError, match="is not stored yet"):
        await plant.start(PLAN_PATH)
    (plant.folder / "line-7.plan.json").write_text("{}")
    with pytest.raises(PlanError):
        await plant.start(PLAN_PATH)


def test_releases_are_compared_by_all_of_their_values() -> None:
    """What tells an order of the release before from one of the new release."""
    assert isinstance(release_of(OLD), Release)
    assert release_of(OLD) != release_of(NEW)


@pytest.mark.parametrize(
    ("said", "accepts", "finding"),
    [
        ("revert", frozenset(), "permanent before the common decision"),
        ("hold", frozenset(), "cannot go back"),
        ("hold,reflash,revert", frozenset(), "writing the previous image again"),
        ("none", frozenset({Accept.NO_HOLD}), "cannot go back"),
    ],
)
async def test_a_device_that_said_what_it_cannot_is_refused_in_advance(
    plant: Plant, said: str, accepts: frozenset[Accept], finding: str
) -> None:
    plant.publish(line_plan(version="8", accepts=accepts), "plans/line-8.plan.json")
    await plant.progress.describe("m1", digest_of(b"m1"), Mode.MERGE, {HARDWARE: "board:1", CAN: said})

    with pytest.raises(PlanRefusedError, match=finding):
        await plant.start("line-8")


async def test_a_plan_may_accept_what_a_device_cannot(plant: Plant) -> None:
    everything = frozenset({Accept.NO_HOLD, Accept.NO_REVERT, Accept.RE_FLASH})
    plant.publish(line_plan(version="8", accepts=everything), "plans/line-8.plan.json")
    await plant.progress.describe("m1", digest_of(b"m1"), Mode.MERGE, {HARDWARE: "board:1", CAN: "hold,reflash,revert"})

    assert (await plant.start("line-8")).plan == "line"
