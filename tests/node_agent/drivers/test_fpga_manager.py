"""An FPGA that Linux loads and that is treated badly: bitstreams it refuses, power cuts on trial, and no register to ask."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.simulators.fpga import FpgaFaults
from gateway.simulators.fpga_tree import NAME, FpgaTree, make_tree
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.fpga_manager import SysfsManager, create
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO
from tests.contract.devices import Release, quiet
from tests.contract.fpga_devices import alive, bitstream, fpga_releases, manager_config
from update.durable import Disk
from update.errors import BootloaderError, FieldrelayError, HealthError, NoWayBackError, SilentError


@dataclass(slots=True)
class Bench:
    """One machine whose FPGA runs version 1.0, drivers for it, and releases."""

    folder: Path
    tree: FpgaTree

    def driver(self, **keys: object) -> ShelfDevice:
        surroundings = Surroundings(Disk(), self.folder / "state", DEMO, NoBootloader())
        return create(manager_config(self.tree, **keys), surroundings)

    def release(self, version: str) -> Release:
        return fpga_releases(self.folder).release(version, bitstream(version))

    async def try_out(self, driver: ShelfDevice, version: str = "2.0") -> None:
        release = self.release(version)
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.restart()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path, stack.enter_context(alive(make_tree(tmp_path / "fpga", bitstream("1.0")))))


async def _states(driver: ShelfDevice) -> list[tuple[SlotState, bool]]:
    return [(slot.state, slot.booted) for slot in await driver.slots()]


async def test_a_trial_is_in_memory_only_and_a_power_cut_ends_it(bench: Bench) -> None:
    driver = bench.driver()
    await bench.try_out(driver)
    assert bench.tree.version() == "2.0"
    assert bench.tree.boot_file.read_bytes() == bitstream("1.0")
    assert bench.tree.power_cycle() == "1.0"
    assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_what_was_confirmed_is_what_a_start_loads(bench: Bench) -> None:
    driver = bench.driver()
    await bench.try_out(driver)
    await driver.confirm()
    assert bench.tree.power_cycle() == "2.0"
    await driver.revert()
    await driver.restart()
    assert bench.tree.version() == "1.0"
    assert bench.tree.power_cycle() == "1.0"


@pytest.mark.parametrize("without", ["version_command", "boot_id"])
async def test_the_driver_knows_what_it_loaded_and_that_a_start_forgot_it(bench: Bench, without: str) -> None:
    keys: dict[str, object] = {"version_command": ()} if without == "version_command" else {}
    driver = bench.driver(**keys)
    await bench.try_out(driver)
    assert await _states(driver) == [(SlotState.CONFIRMED, False), (SlotState.PENDING, True)]
    assert await _states(bench.driver(**keys)) == [(SlotState.CONFIRMED, False), (SlotState.PENDING, True)]
    bench.tree.power_cycle()
    assert await _states(bench.driver(**keys)) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_a_bitstream_that_the_fpga_refuses_is_told_and_taken_back(bench: Bench) -> None:
    FpgaFaults(refused=("2.0",)).keep(bench.tree.folder)
    driver = bench.driver()
    with pytest.raises(HealthError, match="write complete error"):
        await bench.try_out(driver)
    await driver.revert()
    await driver.restart()
    assert bench.tree.version() == "1.0"
    assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_a_bitstream_that_hangs_is_told_and_taken_back(bench: Bench) -> None:
    FpgaFaults(mute=("2.0",)).keep(bench.tree.folder)
    driver = bench.driver(start_timeout_s=0.3)
    with pytest.raises(SilentError):
        await bench.try_out(driver)
    await driver.revert()
    await driver.restart()
    assert bench.tree.version() == "1.0"


async def test_after_a_load_whose_answer_was_lost_nobody_claims_to_know_what_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = bench.driver(version_command=())
    really = SysfsManager.write

    async def lose(manager: SysfsManager, attribute: str, text: str) -> None:
        await really(manager, attribute, text)
        if attribute == "firmware":
            raise BootloaderError("the answer was lost")

    monkeypatch.setattr(SysfsManager, "write", lose)
    with pytest.raises(BootloaderError):
        await bench.try_out(driver)
    assert (await driver._machine.look()).image is None
    monkeypatch.setattr(SysfsManager, "write", really)
    await driver.restart()
    assert await _states(driver) == [(SlotState.CONFIRMED, False), (SlotState.PENDING, True)]


async def test_an_fpga_that_is_another_one_is_refused_before_anything_is_loaded(bench: Bench) -> None:
    release = bench.release("2.0")
    for keys in ({"name": "other"}, {"manager": "fpga7"}):
        with pytest.raises(FieldrelayError):
            await bench.driver(**keys).write(release.bundle, release.chunks, quiet)
    assert bench.tree.version() == "1.0"
    await bench.try_out(bench.driver(name=NAME))
    assert bench.tree.version() == "2.0"


async def test_a_kernel_that_does_not_load_by_name_is_refused(bench: Bench) -> None:
    (bench.tree.attributes / "flags").unlink()
    release = bench.release("2.0")
    with pytest.raises(BootloaderError, match="flags"):
        await bench.driver().write(release.bundle, release.chunks, quiet)


async def test_without_a_copy_of_what_runs_there_is_no_way_back_unless_one_is_named(bench: Bench) -> None:
    release = bench.release("2.0")
    with pytest.raises(NoWayBackError):
        await bench.driver(boot_file=None).write(release.bundle, release.chunks, quiet)
    delivered = bench.folder / "delivered.bin"
    delivered.write_bytes(bitstream("1.0"))
    driver = bench.driver(boot_file=None, installed=delivered)
    await bench.try_out(driver)
    await driver.confirm()
    await driver.revert()
    await driver.restart()
    assert bench.tree.version() == "1.0"
