"""A dry run of a microcontroller: the commands, the process that plays the device, and the driver in between."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.cli.simulate_mcu import mcu
from gateway.simulators.mcu_folder import open_mcu
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Driver, Restart, SlotState, Surroundings
from node_agent.drivers.registry import make_driver
from tests.builders.bundles import DEMO
from tests.contract.devices import quiet
from tests.contract.mcu_devices import mcu_release
from update.durable import Disk
from update.errors import DeviceImageError, SlotError, StateError

_QUICK = {"settle_s": 0.0, "answer_timeout_s": 1.0, "erase_timeout_s": 2.0, "tries": 8}


def say(*arguments: str) -> str:
    result = CliRunner().invoke(mcu, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@contextmanager
def played(tmp_path: Path, *how: str, **options: object) -> Iterator[Driver]:
    """The device in `tmp_path`/mcu and a driver for it, configured as `create` says."""
    folder = tmp_path / "mcu"
    settings = tomllib.loads(say("create", str(folder), *how))
    place = how if "--pty" in how else ("--port", "0")
    program = [sys.executable, "-c", "from gateway.cli.simulate_mcu import mcu; mcu()", "run", str(folder), *place]
    with subprocess.Popen(program, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            known = settings["driver"]["mcuboot"]
            if "--pty" not in how:
                known["udp_port"] = int(words[-1])
            known["power_cycle"] = ["/usr/bin/touch", str(folder / "power")]
            surroundings = Surroundings(Disk(), tmp_path, DEMO, NoBootloader())
            yield make_driver(settings["driver"]["kind"], {**known, **_QUICK, **options}, tmp_path, surroundings)
        finally:
            process.terminate()


def image(tmp_path: Path, version: int) -> bytes:
    file = tmp_path / f"mcu-{version}.bin"
    say("image", str(file), "--release", f"{version}.0.0", "--size", "3000")
    return file.read_bytes()


@pytest.mark.parametrize("how", [(), ("--pty",)], ids=["udp", "pty"])
async def test_a_dry_run_updates_the_device_and_its_flash_outlasts_the_program(tmp_path: Path, how: tuple[str, ...]) -> None:
    release = mcu_release(tmp_path, 2, image(tmp_path, 2))
    with played(tmp_path, *how) as driver:
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        assert await driver.restart() is Restart.DONE
        assert next(slot.state for slot in await driver.slots() if slot.booted) is SlotState.PENDING
        await driver.confirm()
    assert say("release", str(tmp_path / "mcu")) == "2.0.0\n"


async def test_a_trial_ends_with_the_program_that_plays_the_device(tmp_path: Path) -> None:
    release = mcu_release(tmp_path, 2, image(tmp_path, 2))
    with played(tmp_path) as driver:
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.restart()
    assert say("release", str(tmp_path / "mcu")) == "2.0.0 (on trial)\n"
    open_mcu(tmp_path / "mcu")
    assert say("release", str(tmp_path / "mcu")) == "1.0.0\n"


async def test_an_image_that_hangs_is_left_by_the_power_switch(tmp_path: Path) -> None:
    release = mcu_release(tmp_path, 2, image(tmp_path, 2))
    with played(tmp_path, start_timeout_s=2.0) as driver:
        say("misbehave", str(tmp_path / "mcu"), "--hang", "2.0.0")
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.restart()
        with pytest.raises(SlotError):
            await driver.confirm()
        assert next(slot.name for slot in await driver.slots() if slot.booted) == "a"
    assert say("release", str(tmp_path / "mcu")) == "1.0.0\n"


async def test_a_swap_without_power_is_finished_when_there_is_some_again(tmp_path: Path) -> None:
    """The device is off in the middle of its swap; the driver's power switch gives it power, and the swap goes on."""
    release = mcu_release(tmp_path, 2, image(tmp_path, 2))
    with played(tmp_path, start_timeout_s=2.0) as driver:
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        say("misbehave", str(tmp_path / "mcu"), "--cut-swap", "1", "--slow", "0.01", "--drop", "0.05")
        await driver.restart()
        booted = next(slot for slot in await driver.slots() if slot.booted)
    assert (booted.name, booted.state) == ("b", SlotState.PENDING)
    assert say("release", str(tmp_path / "mcu")) == "2.0.0 (on trial)\n"


def test_mistakes_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "mcu", tmp_path / "image"
    verb = ["simulate", "mcu"]
    assert main([*verb, "power", str(folder)]) == StateError.exit_status
    assert f"make one with `fieldrelay simulate mcu create {folder}`" in capsys.readouterr().err
    assert main([*verb, "image", str(file), "--release", "two"]) == DeviceImageError.exit_status
    assert not file.exists()
    assert main([*verb, "create", str(folder)]) == 0
    assert main([*verb, "create", str(folder)]) == StateError.exit_status
