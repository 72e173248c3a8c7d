"""Every kind of device with a fault at every step of an update and of a return: never dead, and always carried on to its end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState
from tests.contract.devices import Device, DeviceMaker, Release, quiet
from tests.contract.faults import Fault, Fuse, back, forward, restarted, tap, until_fault
from tests.contract.kinds import KINDS, Kind, Releases
from update.durable import Disk

_IN_TEST, _COSTLY = 6, 2
"""So many of the steps get each fault here, spread evenly; all of them in soak."""

Life = Callable[[Device, Release], Awaitable[None]]


_TAKEN_BACK = "swupdate-web"
"""Its device tries whatever is uploaded, the release before included, and nobody confirms that one to it after a cut return."""


def _cases(*, without: str = "") -> list[object]:
    """Every kind with every fault that it can have: without a way to the device, only the process can die."""
    own = [Fault.DIES_BEFORE, Fault.DIES_AFTER]
    return [
        pytest.param(name, fault, id=f"{name}-{fault}", marks=kind.marks)
        for name, kind in KINDS.items()
        if name != without
        for fault in (Fault if kind.reaches else own)
    ]


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def releases(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return kind.supply(tmp_path_factory.mktemp("r"))


@pytest.fixture
def make_device(kind: Kind, releases: Releases) -> Iterator[DeviceMaker]:
    with ExitStack() as stack:
        yield kind.maker(stack, releases)


async def _update(device: Device, release: Release) -> None:
    await device.driver.write(release.bundle, release.chunks, quiet)
    await device.driver.activate()
    await restarted(device)
    await device.driver.slots()
    await device.driver.confirm()


async def _try_and_return(device: Device, release: Release) -> None:
    await device.driver.write(release.bundle, release.chunks, quiet)
    await device.driver.activate()
    await restarted(device)
    await device.driver.revert()
    await restarted(device)


@dataclass(frozen=True, slots=True)
class Bench:
    """Devices of one kind that live through `life`, each in its own folder."""

    kind: Kind
    make_device: DeviceMaker
    releases: Releases
    folder: Path
    share: int

    async def broken(self, life: Life, fault: Fault) -> AsyncIterator[Device]:
        """One device for each step, with the fault there. Where a driver polls, the last steps may not come every time."""
        came = 0
        for at in await self._steps(life):
            device, burnt = await self._broken(life, at, fault)
            if burnt:
                came += 1
                yield device
        assert came, "no fault came"

    async def _steps(self, life: Life) -> range:
        """The numbers of the operations that get a fault."""
        device, fuse = self._made("counted")
        fuse.arm()
        await life(device, self.releases(2))
        step = max(1, fuse.count // self.share)
        return range(step // 2, fuse.count, step)

    async def _broken(self, life: Life, at: int, fault: Fault) -> tuple[Device, bool]:
        """The device, and whether the fault came: started again where the process died; or left in the middle."""
        device, fuse = self._made(str(at))
        fuse.arm(at, fault)
        await until_fault(lambda: life(device, self.releases(2)))
        burnt, fuse.live = fuse.burnt, False
        if fault in {Fault.DIES_BEFORE, Fault.DIES_AFTER}:
            assert device.board.power_on() in {"a", "b"}
        assert {slot.name for slot in await device.driver.slots()} == {"a", "b"}
        return device, burnt

    def _made(self, name: str) -> tuple[Device, Fuse]:
        folder, fuse = self.folder / name, Fuse()
        folder.mkdir()
        device = self.make_device(folder, Disk(fuse.disk))
        tap(device.driver, self.kind.reaches, fuse)
        return device, fuse


@pytest.fixture(params=[_IN_TEST, pytest.param(1 << 30, marks=pytest.mark.soak)], ids=["some", "all"])
def bench(request: pytest.FixtureRequest, kind: Kind, make_device: DeviceMaker, releases: Releases, tmp_path: Path) -> Bench:
    share = min(request.param, _COSTLY) if kind.costly and request.param == _IN_TEST else request.param
    return Bench(kind, make_device, releases, tmp_path, int(share))


@pytest.mark.parametrize(("kind", "fault"), _cases(), indirect=["kind"])
@pytest.mark.timeout(600)
async def test_an_update_with_a_fault_at_any_step_is_carried_to_its_end(bench: Bench, fault: Fault) -> None:
    async for device in bench.broken(_update, fault):
        await forward(device, bench.releases(2))
        assert [device.board.power_on() for _ in range(2)] == ["b", "b"]
        assert [slot.version for slot in await device.driver.slots()][1] == "2.0"


@pytest.mark.parametrize(("kind", "fault"), _cases(without=_TAKEN_BACK), indirect=["kind"])
@pytest.mark.timeout(600)
async def test_a_return_with_a_fault_at_any_step_ends_where_it_came_from(bench: Bench, fault: Fault) -> None:
    async for device in bench.broken(_try_and_return, fault):
        await back(device)
        assert [device.board.power_on() for _ in range(2)] == ["a", "a"]
        first, _ = await device.driver.slots()
        assert first.state is SlotState.ACTIVE
