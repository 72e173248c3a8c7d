"""The driver with the real MCUboot and Zephyr's SMP server, on a microbit in QEMU."""

import random
from pathlib import Path

import pytest

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Restart, SlotState, Surroundings
from node_agent.drivers.mcuboot import McubootDriver
from tests.builders.bundles import DEMO
from tests.builders.microcontroller import quick
from tests.contract.devices import Release, quiet
from tests.contract.mcu_devices import mcu_release
from tests.system.mcu_firmware import Firmware, need_firmware
from tests.system.mcu_qemu import QUIET_S, McuBoard
from update.durable import Disk

SLOWEST_CUT_S = 0.06
"""After so long the swap of this image is over."""


class _Enough(Exception):  # noqa: N818 - the agent was killed here
    """The upload has come far enough."""


class Bench:
    """One board, its driver, and a release for it."""

    def __init__(self, folder: Path, firmware: Firmware) -> None:
        self.board = McuBoard(folder, firmware)
        self.folder, self.firmware = folder, firmware

    def driver(self) -> McubootDriver:
        waits = {"settle_s": QUIET_S, "answer_timeout_s": 5.0, "erase_timeout_s": 60.0, "start_timeout_s": 90.0, "tries": 4}
        config = quick(self.board.place, installed=self.firmware.signed, **waits)
        return McubootDriver(config, Surroundings(Disk(), self.folder / "state", DEMO, NoBootloader()))

    def release(self, number: int) -> Release:
        return mcu_release(self.folder, number, self.firmware.version(f"{number}.0.1+4", self.folder))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, need_firmware())


async def _states(driver: McubootDriver) -> list[tuple[SlotState, bool]]:
    return [(slot.state, slot.booted) for slot in await driver.slots()]


async def _cycle(bench: Bench, release: Release) -> None:
    """Upload (cut once), trial, loss of power, trial again, confirmation, and starts that keep it."""
    driver, told = bench.driver(), []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done > total // 3:
            raise _Enough

    with pytest.raises(_Enough):
        await driver.write(release.bundle, release.chunks, stop)
    reached, again = told[-1], []
    await driver.write(release.bundle, release.chunks, lambda done, _total: again.append(done))
    assert again[0] >= reached  # it went on where it was
    await driver.activate()
    assert await driver.restart() is Restart.DONE
    target = next(slot for slot in await driver.slots() if slot.booted)
    assert (target.state, target.trial) == (SlotState.PENDING, True)
    bench.board.power_cycle()
    assert next(slot for slot in await driver.slots() if slot.name == target.name).state is SlotState.BAD
    written = await driver.write(release.bundle, release.chunks, quiet)
    assert written.reused_bytes == written.image_bytes  # MCUboot gave it back to its place
    await driver.activate()
    await driver.restart()
    await driver.confirm()
    bench.board.power_cycle()
    now = next(slot for slot in await driver.slots() if slot.booted)
    assert (now.name, now.state) == (target.name, SlotState.ACTIVE)


@pytest.mark.system
@pytest.mark.interop
@pytest.mark.timeout(400)
async def test_an_update_is_resumed_tried_lost_tried_again_and_confirmed(bench: Bench) -> None:
    with bench.board.supervised():
        await _cycle(bench, bench.release(2))


async def _marked(bench: Bench) -> bytes:
    """The flash of a board on which release 2 is marked, before its swap."""
    release = bench.release(2)
    with bench.board.supervised():
        await bench.driver().write(release.bundle, release.chunks, quiet)
        await bench.driver().activate()
    return bench.board.flash.read_bytes()


async def _cut(bench: Bench, marked: bytes, after_s: float) -> int:
    """One power cut `after_s` into the start that swaps; whatever came of it, a whole image runs afterwards."""
    bench.board.flash.write_bytes(marked)
    pages = bench.board.cut_after(after_s)
    with bench.board.supervised():
        states = await _states(bench.driver())
    trial = [(SlotState.CONFIRMED, False), (SlotState.PENDING, True)]
    reverted = [(SlotState.ACTIVE, True), (SlotState.BAD, False)]
    assert states in (trial, reverted)
    return pages


@pytest.mark.system
@pytest.mark.interop
@pytest.mark.timeout(400)
async def test_a_power_cut_in_the_swap_leaves_a_whole_image(bench: Bench) -> None:
    await _cut(bench, await _marked(bench), 0.03)


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(3600)
async def test_twenty_updates_brick_nothing(bench: Bench) -> None:
    with bench.board.supervised():
        for number in range(2, 22):
            await _cycle(bench, bench.release(number))
    print("20 update cycles, 0 bricks")


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(3600)
async def test_twenty_power_cuts_in_the_swap_brick_nothing(bench: Bench) -> None:
    marked, dice = await _marked(bench), random.Random(1)
    pages = [await _cut(bench, marked, dice.uniform(0, SLOWEST_CUT_S)) for _ in range(20)]
    print(f"20 power cuts, 0 bricks; pages changed until the cut: {sorted(pages)}")


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(600)
async def test_what_was_confirmed_can_be_left_and_a_mark_taken_back(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    with bench.board.supervised():
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.revert()
        assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.restart()
        await driver.confirm()
        await driver.revert()
        await driver.restart()
        assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]
        bench.board.power_cycle()
        assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]
