"""A dry run of a secondary processor: the commands, the tree that one of them keeps alive, and the driver in between."""

import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.simulate_cpu import cpu
from gateway.simulators.cpu import make_firmware
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Driver, SlotState, Surroundings
from node_agent.drivers.registry import make_driver
from tests.builders.bundles import DEMO
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases, carry_on
from update.durable import Disk
from update.errors import HealthError, StateError

PATIENCE_S = 60.0


def say(*arguments: str) -> str:
    result = CliRunner().invoke(cpu, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    folder = tmp_path / "cpu"
    settings = tomllib.loads(say("create", str(folder)))
    options = {**settings["driver"]["remoteproc"], "poll_interval_s": 0.02, "watch_s": 0.3}
    program = [sys.executable, "-c", "from gateway.cli.simulate_cpu import cpu; cpu()", "run", str(folder)]
    process = subprocess.Popen(program, cwd=Path(__file__).parents[3])
    try:
        wait_for_power(folder)  # it runs once it takes an order
        yield make_driver(settings["driver"]["kind"], options, tmp_path, Surroundings(Disk(), tmp_path, DEMO, NoBootloader()))
    finally:
        process.terminate()
        process.wait(30)


def wait_for_power(folder: Path) -> None:
    say("power", str(folder))
    until = time.monotonic() + PATIENCE_S
    while (folder / "power").exists():
        assert time.monotonic() < until, "nobody keeps the tree alive"
        time.sleep(0.01)


def releases(tmp_path: Path) -> ImageReleases:
    return ImageReleases(tmp_path, "cpu", make_firmware)


async def test_a_dry_run_updates_the_processor_and_a_power_cut_keeps_what_was_confirmed(driver: Driver, tmp_path: Path) -> None:
    release = releases(tmp_path)(2)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    await driver.restart()
    await driver.confirm()
    wait_for_power(tmp_path / "cpu")
    assert await carry_on(driver) == "b"
    assert (tmp_path / "cpu" / "version").read_text().strip() == "2.0"
    assert not (tmp_path / "cpu" / "refused").exists()


async def test_a_dry_run_shows_firmware_that_crashes_taken_back(driver: Driver, tmp_path: Path) -> None:
    say("misbehave", str(tmp_path / "cpu"), "2.0", "crashes")
    release = releases(tmp_path)(2)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    with pytest.raises(HealthError):
        await driver.restart()
    await driver.revert()
    await driver.restart()
    assert [slot.state for slot in await driver.slots()] == [SlotState.ACTIVE, SlotState.BAD]


def test_firmware_is_written_once_and_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    say("firmware", str(tmp_path / "fw.elf"), "--release", "2.0", "--behaviour", "hangs")
    assert b"2.0 hangs" in (tmp_path / "fw.elf").read_bytes()
    with pytest.raises(StateError):
        say("firmware", str(tmp_path / "fw.elf"), "--release", "2.0")
    with pytest.raises(StateError):
        say("power", str(tmp_path))
    with pytest.raises(StateError):
        say("create", str(tmp_path))
