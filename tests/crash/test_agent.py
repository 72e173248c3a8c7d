"""The agent stopped at every place where it can be stopped: afterwards the device runs the old or the new version, whole,
says so to its assigner, and the next update completes (acceptance line 5 of the main job). As one of several devices it ends
where it was decided for all of them.

`make test` takes a sample; its seed is printed, and FIELDRELAY_SEED repeats it. `make soak` takes all and prints the list.
"""

import os
import random
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState
from node_agent.states import Outcome, State
from tests.crash.tripwire import Point, Stopped
from tests.crash.world import Behaviour, Supplies, World
from update.durable import Kind

SAMPLE = 36
KEPT = {Behaviour.GOOD, Behaviour.COMMITTED}


class Stop(StrEnum):
    """How it ends at the point."""

    PROCESS = "process"  # the agent is killed, a supervisor starts it again
    RESET = "reset"  # the machine starts anew, its disk has everything that was written
    POWER = "power"  # the machine starts anew, and what was not synced is gone


@pytest.fixture(scope="module")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    return Supplies(tmp_path_factory.mktemp("supplies"))


@pytest.fixture(scope="module")
def new_device(tmp_path_factory: pytest.TempPathFactory, supplies: Supplies) -> Path:
    """A commissioned device to be copied."""
    folder = tmp_path_factory.mktemp("device")
    World.commission(folder, supplies, Behaviour.GOOD)
    return folder


def world_in(folder: Path, new_device: Path, supplies: Supplies, behaviour: Behaviour) -> World:
    shutil.copytree(new_device, folder)
    return World(folder, supplies, behaviour, (2, 3) if behaviour is Behaviour.GOOD else (2,))


async def points_of(folder: Path, new_device: Path, supplies: Supplies, behaviour: Behaviour) -> list[Point]:
    """Every place of one undisturbed life, each once."""
    seen = await world_in(folder, new_device, supplies, behaviour).walk()
    assert len(set(seen)) == len(seen)
    return seen


async def stop_and_recover(world: World, point: Point, stop: Stop) -> None:
    """Stop at `point`, start again, judge the device, then carry out the next update."""
    with pytest.raises(Stopped):
        await world.walk(stop_at=point)
    if stop is Stop.POWER:
        world.lose_power()
    if stop is not Stop.PROCESS:
        world.power_on()
    assert world.running_version() in {1, *world.plan}, "a broken slot was started"
    await world.walk()
    await judge(world)
    world.plan = (*world.plan, 4)
    await world.walk()
    await judge(world)


async def judge(world: World) -> None:
    """At rest: a whole version runs, no trial is open, the slots say so, and the assigner was told the same."""
    slots = await world.slots()
    assert slots[world.running].booted
    assert slots[world.running].state is SlotState.ACTIVE
    assert not any(slot.trial for slot in slots.values())
    assert world.journal() is State.IDLE
    good = [version for version in world.plan if version != 2 or world.behaviour in KEPT]
    assert world.running_version() == max([1, *good])
    for version in world.plan:
        assert outcome_of(world, version) is (Outcome.CONFIRMED if version in good else Outcome.ROLLED_BACK)


def outcome_of(world: World, version: int) -> Outcome | None:
    """The one result of a version's action, under one id however often it was told."""
    ((_, outcome),) = world.results[world.supplies.offers[version].action]
    return outcome


def numbered(tmp_path: Path) -> Iterator[Path]:
    """A fresh place for each run, the one before it removed."""
    for number in range(100_000):
        folder = tmp_path / str(number)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


async def all_points(places: Iterator[Path], new_device: Path, supplies: Supplies) -> list[tuple[Behaviour, Point]]:
    found: list[tuple[Behaviour, Point]] = []
    for behaviour in Behaviour:
        found += [(behaviour, point) for point in await points_of(next(places), new_device, supplies, behaviour)]
    return found


@pytest.mark.parametrize("behaviour", Behaviour)
async def test_an_undisturbed_life_ends_as_it_must(
    tmp_path: Path, new_device: Path, supplies: Supplies, behaviour: Behaviour
) -> None:
    world = world_in(tmp_path / "device", new_device, supplies, behaviour)
    await world.walk()
    await judge(world)


async def test_the_points_are_many_and_cover_every_kind_of_durable_operation(
    tmp_path: Path, new_device: Path, supplies: Supplies
) -> None:
    points = {point for _, point in await all_points(numbered(tmp_path), new_device, supplies)}
    assert len(points) >= 500
    assert {kind for kind in Kind if any(point.site.endswith(f" {kind}") for point in points)} == set(Kind) - {Kind.TRUNCATE}
    assert {point.state for point in points} >= set(State) - {State.IDLE}


@pytest.mark.timeout(600)
async def test_stopped_at_sampled_points_the_device_recovers(tmp_path: Path, new_device: Path, supplies: Supplies) -> None:
    seed = int(os.environ.get("FIELDRELAY_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FIELDRELAY_SEED={seed}")
    chosen = random.Random(seed)
    places = numbered(tmp_path)
    points = await all_points(places, new_device, supplies)
    for behaviour, point in chosen.sample(points, SAMPLE):
        stop = chosen.choice(list(Stop))
        print(f"{behaviour} {stop} {point.state} {point.site} {point.hit}")
        await stop_and_recover(world_in(next(places), new_device, supplies, behaviour), point, stop)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_stopped_at_every_point_the_device_recovers(tmp_path: Path, new_device: Path, supplies: Supplies) -> None:
    places = numbered(tmp_path)
    points = await all_points(places, new_device, supplies)
    for number, (behaviour, point) in enumerate(points):
        for stop in (Stop.POWER, (Stop.PROCESS, Stop.RESET)[number % 2]):
            print(f"{behaviour} {stop} {point.state} {point.site} {point.hit}", flush=True)
            await stop_and_recover(world_in(next(places), new_device, supplies, behaviour), point, stop)
    print(f"{len({point for _, point in points})} distinct points, {2 * len(points)} runs")
