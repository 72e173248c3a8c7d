"""`fieldrelay simulate fpga`: the configuration that is printed drives what was made."""

import asyncio
import os
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.simulators.fpga import Fpga, make_bitstream
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Driver, SlotState, Surroundings
from node_agent.drivers.registry import make_driver
from tests.builders.bundles import DEMO
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases
from update.durable import Disk
from update.errors import HealthError

_QUICK: Mapping[str, object] = {"settle_s": 0.0, "watch_s": 0.0, "poll_interval_s": 0.05}


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed commands name the installed program."""
    scripts = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    monkeypatch.setenv("PATH", os.pathsep.join([*scripts, os.environ["PATH"]]))


def _driver(folder: Path, printed: str, **keys: object) -> Driver:
    values = tomllib.loads(printed)
    kind = values["driver"]["kind"]
    options = {**values["driver"][kind], **keys}
    return make_driver(kind, options, folder, Surroundings(Disk(), folder / "state", DEMO, NoBootloader()))


async def _update(driver: Driver, releases: ImageReleases, version: int) -> None:
    release = releases(version)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    await driver.restart()
    await driver.confirm()


@pytest.mark.parametrize("regions", ["1", "2"])
def test_a_dry_run_behind_a_flash_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str], regions: str) -> None:
    place = tmp_path / "fpga"
    assert main(["simulate", "fpga", "create", str(place), "--regions", regions]) == 0
    driver = _driver(tmp_path, capsys.readouterr().out, **_QUICK)
    releases = ImageReleases(tmp_path, "fpga", make_bitstream)
    asyncio.run(_update(driver, releases, 2))
    assert main(["simulate", "fpga", "release", str(place)]) == 0
    assert capsys.readouterr().out == "2.0\n"
    assert main(["simulate", "fpga", "misbehave", str(place), "--refuse", "3.0"]) == 0
    with pytest.raises(HealthError):
        asyncio.run(_update(driver, releases, 3))
    asyncio.run(driver.revert())
    asyncio.run(driver.restart())
    assert Fpga(place).version() == "2.0"
    running, given_up = sorted(asyncio.run(driver.slots()), key=lambda slot: not slot.booted)
    assert (running.state, given_up.state) == (SlotState.ACTIVE, SlotState.BAD)


def test_its_power_can_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "fpga")
    main(["simulate", "fpga", "create", place])
    capsys.readouterr()
    assert main(["simulate", "fpga", "load", place]) == 0
    assert main(["simulate", "fpga", "cut", place, "--region", "update"]) == 0
    assert capsys.readouterr().out == "1.0\ngolden-1\n"
    assert main(["simulate", "fpga", "cut", place, "--region", "golden"]) == 14
    assert main(["simulate", "fpga", "run", place]) == 14
    assert main(["simulate", "fpga", "create", place]) == 14
    assert main(["simulate", "fpga", "load", str(tmp_path / "nothing")]) == 14


async def test_a_dry_run_under_sysfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "fpga"
    assert main(["simulate", "fpga", "create", str(place), "--sysfs"]) == 0
    driver = _driver(tmp_path, capsys.readouterr().out, watch_s=0.0, poll_interval_s=0.05)
    running = await asyncio.create_subprocess_exec("fieldrelay", "simulate", "fpga", "run", str(place))
    try:
        await _update(driver, ImageReleases(tmp_path, "fpga", make_bitstream), 2)
    finally:
        running.terminate()
        await running.wait()
    assert main(["simulate", "fpga", "load", str(place)]) == 0
    assert capsys.readouterr().out == "2.0\n"


def test_a_bitstream_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "f.bin"
    assert main(["simulate", "fpga", "bitstream", str(file), "--release", "2.0", "--size", "10"]) == 0
    before = file.read_bytes()
    assert main(["simulate", "fpga", "bitstream", str(file), "--release", "3.0"]) == 14
    assert file.read_bytes() == before
