from pathlib import Path

import pytest

from node_agent.bootloaders.bootloader import Bootloader
from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.none import NoBootloader
from node_agent.bootloaders.simulated import SimulatedBootloaderConfig, create
from node_agent.drivers.driver import Restart, SlotState, Surroundings
from node_agent.drivers.simulated import SimulatedConfig, SimulatedDriver
from tests.builders.bundles import DEMO
from tests.contract.devices import make_release
from update.durable import Disk
from update.errors import BootloaderError, HandlerError


def board(folder: Path, *, fresh: bool = True) -> Bootloader:
    line = CommandLine(folder / "board" / "cmdline")
    return create(SimulatedBootloaderConfig(folder / "board" / "environment", line, fresh), Disk())


def driver(folder: Path, bootloader: Bootloader) -> SimulatedDriver:
    config = SimulatedConfig(selections=("stable,copy1", "stable,copy2"), restarts=True)
    return SimulatedDriver(config, Surroundings(Disk(), folder / "state", DEMO, bootloader))


async def running(device: SimulatedDriver) -> tuple[str, SlotState, bool]:
    (slot,) = [slot for slot in await device.slots() if slot.booted]
    return slot.name, slot.state, slot.trial


async def test_a_device_that_restarts_itself_lives_a_whole_update_beside_its_agent(tmp_path: Path) -> None:
    release, device = make_release(tmp_path, 2, delta=False), driver(tmp_path, board(tmp_path))
    assert await running(device) == ("a", SlotState.ACTIVE, False)
    await device.write(release.bundle, release.chunks, lambda _done, _total: None)
    await device.activate()
    assert await device.restart() is Restart.DONE
    assert await running(device) == ("b", SlotState.PENDING, True)
    await device.confirm()
    assert await running(driver(tmp_path, board(tmp_path))) == ("b", SlotState.ACTIVE, False), "a fresh board is fresh once"


async def test_its_trial_ends_with_a_second_start_that_nobody_confirmed(tmp_path: Path) -> None:
    release, device = make_release(tmp_path, 2, delta=False), driver(tmp_path, board(tmp_path))
    await device.write(release.bundle, release.chunks, lambda _done, _total: None)
    await device.activate()
    for _ in range(3):
        await device.restart()
    assert (await running(device))[0] == "a"


async def test_only_a_simulated_board_can_be_restarted_so(tmp_path: Path) -> None:
    with pytest.raises(HandlerError, match="restarts"):
        await driver(tmp_path, NoBootloader()).restart()


def test_a_board_is_not_made_where_nobody_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(BootloaderError, match="environment"):
        board(tmp_path, fresh=False).primary()
    assert not (tmp_path / "board").exists()
