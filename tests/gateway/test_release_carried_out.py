"""The real gateway carries a signed release plan out on devices with real agents: all of them, or none."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.control.release_messages import CommandRequest, ReleaseCommand, StartRequest
from gateway.fleet.release_states import ReleaseState
from tests.builders.attached_site import AttachedSite, dry
from update.digest import digest_of
from update.plans.document import plan_bytes
from update.plans.plan import Deadlines, PlanBundle, PlanMember, ReleasePlan, Selector

NAMES = ("dry-1", "dry-2", "dry-3")
_TRIES = 2400


@pytest.fixture
def site() -> Iterator[AttachedSite]:
    with tempfile.TemporaryDirectory() as folder:
        made = AttachedSite(Path(folder))
        made.release("dry:1.0", "2.0", b"image of nothing", device="/dev/slot")
        digest = digest_of((made.folder / "dry-2.0.swu").read_bytes())
        bundle = PlanBundle("devices/dry-2.0.swu", digest, "2.0")
        members = tuple(
            PlanMember(f"part-{number}", Selector(nodes=(name,)), bundle, group=number) for number, name in enumerate(NAMES)
        )
        deadlines = Deadlines(prepare_s=300, activate_s=300, test_s=300, commit_s=300, revert_s=300)
        plan = ReleasePlan("line", "7", members, deadlines=deadlines)
        made.publish_plan(plan.name, plan.version, plan_bytes(plan))
        yield made


def gated(node: str, file: Path, *, deadline_s: float = 60.0) -> str:
    """A device that is well once a file is there."""
    check = f'check = [{{ kind = "command", command = ["/usr/bin/test", "-e", "{file}"], timeout_s = 10.0 }}]\n'
    return dry(node, check).replace("deadline_s = 60.0", f"deadline_s = {deadline_s}")


async def known(site: AttachedSite) -> None:
    """Every device was here, and the gateway has the plan."""
    await site.until(lambda nodes: set(nodes) == {*NAMES} and all(node.running.slot for node in nodes.values()))
    await site.operator.refresh("plant")


async def until(site: AttachedSite, condition: Callable[[ReleaseState], bool]) -> ReleaseState:
    for _ in range(_TRIES):
        if condition(state := await site.operator.release(1)):
            return state
        await asyncio.sleep(0.05)
    pytest.fail(f"{await site.operator.release(1)}\n{site.log[-6000:]}")


async def test_all_devices_take_the_release_and_the_status_shows_it(site: AttachedSite) -> None:
    await site.make(*map(dry, NAMES))
    async with site.running():
        await known(site)
        begun = await site.operator.start_release(StartRequest(release="line-7"))
        assert (begun.standing, begun.steps) == ("preparing", 3)
        ended = await until(site, lambda state: bool(state.ending))
        (shown,) = (await site.operator.status()).releases
        nodes = await site.until(lambda nodes: all(node.running.version == "2.0" for node in nodes.values()))
    assert (ended.standing, shown.standing) == ("complete", "complete")
    assert {member.course for member in ended.members} == {"new"}
    assert {node.running.slot for node in nodes.values()} == {"b"}


async def test_one_that_is_not_well_takes_all_of_them_back(site: AttachedSite) -> None:
    never = site.folder / "never"
    await site.make(dry("dry-1"), dry("dry-2"), gated("dry-3", never, deadline_s=1.0))
    async with site.running():
        await known(site)
        await site.operator.start_release(StartRequest(release="line-7"))
        ended = await until(site, lambda state: bool(state.ending))
        after = await site.until(lambda nodes: {node.running.slot for node in nodes.values()} == {"a"})
    assert (ended.standing, ended.decision) == ("reverted", "revert")
    assert ended.why.startswith("dry-3 does not run the new version: rolled-back: ")
    assert {node.running.version for node in after.values()} != {"2.0"}
    assert {member.course for member in ended.members} == {"old"}


async def test_a_killed_gateway_goes_on_where_it_was(site: AttachedSite) -> None:
    """Killed while the second device is tried and the first one holds: both go on, and then the third."""
    well = site.folder / "well"
    await site.make(dry("dry-1"), gated("dry-2", well), dry("dry-3"))
    async with site.running() as process:
        await known(site)
        await site.operator.start_release(StartRequest(release="line-7"))
        await until(site, lambda state: state.step == 2 and state.members[1].course == "going")
        process.kill()
        await process.wait()
    async with site.running():
        state = await site.operator.release(1)
        assert (state.phase, state.members[2].course) == ("activating", "waiting")
        well.touch()
        ended = await until(site, lambda state: bool(state.ending))
    assert ended.standing == "complete"


async def test_an_aborted_release_is_taken_back_on_every_device(site: AttachedSite) -> None:
    await site.make(dry("dry-1"), gated("dry-2", site.folder / "never"), dry("dry-3"))
    async with site.running():
        await known(site)
        await site.operator.start_release(StartRequest(release="line-7"))
        await until(site, lambda state: state.members[0].place == "holding")
        await site.operator.command_release(1, ReleaseCommand.ABORT, CommandRequest(reason="wrong week"))
        ended = await until(site, lambda state: bool(state.ending))
        await site.until(lambda nodes: {node.running.slot for node in nodes.values()} == {"a"})
    assert (ended.standing, ended.why.endswith("wrong week")) == ("reverted", True)
