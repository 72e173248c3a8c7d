"""The documented program for USB DFU: with a stand-in for dfu-util that has a device, and with the real tools that have none."""

import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.command import CommandConfig, create
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO
from tests.configs.dfu_images import dfu_image
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases
from tests.peers import need_tool
from update.durable import Disk
from update.errors import DeviceImageError, HandlerError, SilentError

PROGRAM = Path(__file__).parents[2] / "configs" / "devices" / "dfu.py"
STAND_IN = Path(__file__).with_name("dfu_util_stand_in.py")


@dataclass(slots=True)
class Site:
    """A device in a folder, the stand-in for dfu-util beside it, and the driver."""

    folder: Path
    driver: ShelfDevice
    releases: ImageReleases

    @property
    def flash(self) -> bytes:
        return (self.folder / "flash.bin").read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "flash.bin").write_bytes(dfu_image("1.0"))
    (tmp_path / "delivered.dfu").write_bytes(dfu_image("1.0"))
    tool = tmp_path / "dfu-util"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} {tmp_path} "$@"\n')
    tool.chmod(0o755)
    config = CommandConfig(
        program=(sys.executable, "-I", "-S", str(PROGRAM)),
        address="0483:df11",
        settings={"dfu_util": str(tool), "serial": "A1"},
        device="sensor",
        installed=tmp_path / "delivered.dfu",
        watch_s=0,
        poll_interval_s=0.05,
        start_timeout_s=0.2,
    )
    driver = create(config, Surroundings(Disk(), tmp_path / "state", DEMO, NoBootloader()))
    return Site(tmp_path, driver, ImageReleases(tmp_path, "sensor", dfu_image))


async def test_a_device_is_written_confirmed_and_written_back(site: Site) -> None:
    release = site.releases(2)
    await site.driver.write(release.bundle, release.chunks, quiet)
    await site.driver.activate()
    assert site.flash == dfu_image("1.0")
    await site.driver.restart()
    await site.driver.confirm()
    assert site.flash == dfu_image("2.0")
    assert [slot.version for slot in await site.driver.slots()] == ["1.0", "2.0"]
    await site.driver.revert()
    await site.driver.restart()
    assert site.flash == dfu_image("1.0")


async def test_a_device_that_is_pulled_in_the_middle_is_written_back(site: Site) -> None:
    release = site.releases(2)
    await site.driver.write(release.bundle, release.chunks, quiet)
    await site.driver.activate()
    (site.folder / "pulled").touch()
    with pytest.raises(HandlerError, match="ended with 74"):
        await site.driver.restart()
    await site.driver.revert()
    await site.driver.restart()
    assert site.flash == dfu_image("1.0")
    assert [slot.state for slot in await site.driver.slots()] == [SlotState.ACTIVE, SlotState.BAD]


async def test_a_device_that_is_away_is_said_to_be(site: Site) -> None:
    (site.folder / "flash.bin").unlink()
    with pytest.raises(SilentError, match="no such device"):
        await site.driver.slots()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (dfu_image("2.0", product=0x1234), "it is for 0483:1234"),
        (dfu_image("2.0")[:-1], "no DFU suffix"),
        (b"short", "no DFU suffix"),
        (b"x" + dfu_image("2.0")[1:], "damaged"),
    ],
)
async def test_an_image_that_is_not_for_this_device_is_refused_before_it_is_touched(
    site: Site, content: bytes, reason: str
) -> None:
    release = site.releases.release("2.0", content)
    with pytest.raises(DeviceImageError, match=reason):
        await site.driver.write(release.bundle, release.chunks, quiet)
    assert site.flash == dfu_image("1.0")
    assert [slot.state for slot in await site.driver.slots()] == [SlotState.ACTIVE, SlotState.EMPTY]


@pytest.mark.interop
def test_the_real_dfu_suffix_agrees_about_an_image(tmp_path: Path) -> None:
    image = tmp_path / "image.dfu"
    for data, whole in ((dfu_image("2.0"), True), (random.Random(1).randbytes(100), False)):
        image.write_bytes(data)
        done = subprocess.run(
            [need_tool("dfu-suffix"), "-c", str(image)], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode == 0) is whole, done.stdout + done.stderr


@pytest.mark.interop
@pytest.mark.parametrize("arguments", [["-l"], ["-a", "0", "-D", "IMAGE", "-R"], ["-a", "0", "-U", "TARGET"]])
def test_the_real_dfu_util_takes_the_options_and_finds_no_device(tmp_path: Path, arguments: list[str]) -> None:
    places = {"IMAGE": tmp_path / "image.dfu", "TARGET": tmp_path / "read"}
    places["IMAGE"].write_bytes(dfu_image("2.0"))
    given = [str(places.get(each, each)) for each in arguments]
    done = subprocess.run(
        [need_tool("dfu-util"), "-d", "0483:df11", "-S", "A1", *given], capture_output=True, text=True, check=False, timeout=60
    )
    said = done.stdout + done.stderr
    assert "Usage:" not in said
    assert "invalid option" not in said
    if arguments != ["-l"]:
        assert "No DFU capable USB device available" in said or "libusb" in said, said
