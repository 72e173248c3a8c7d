"""The documented program for UDS, over the real library, against a simulated ECU."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.command import CommandConfig, create
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO
from tests.configs.ecu import Ecu, served
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases
from update.durable import Disk
from update.errors import HandlerError

PROGRAM = Path(__file__).parents[2] / "configs" / "devices" / "uds.py"


def ecu_image(version: str) -> bytes:
    return f"{version}\n".encode() + random.Random(version).randbytes(3_000)


@pytest.fixture
def ecu() -> Iterator[Ecu]:
    with served(Ecu(ecu_image("1.0"))) as found:
        yield found


@pytest.fixture
def releases(tmp_path: Path) -> ImageReleases:
    return ImageReleases(tmp_path, "drive", ecu_image)


@pytest.fixture
def device(ecu: Ecu, tmp_path: Path) -> ShelfDevice:
    key = tmp_path / "key"
    key.write_text(f"#!{sys.executable}\nimport sys\nprint(bytes.fromhex(sys.argv[1])[::-1].hex())\n")
    key.chmod(0o755)
    (tmp_path / "delivered.bin").write_bytes(ecu.flash)
    config = CommandConfig(
        program=(sys.executable, str(PROGRAM)),
        address=f"udp:127.0.0.1:{ecu.port}",
        settings={"security_level": "1", "key_program": str(key), "timeout_s": "2"},
        device="drive",
        installed=tmp_path / "delivered.bin",
        watch_s=0,
        poll_interval_s=0.05,
    )
    return create(config, Surroundings(Disk(), tmp_path / "state", DEMO, NoBootloader()))


async def test_an_ecu_is_flashed_confirmed_and_flashed_back(device: ShelfDevice, ecu: Ecu, releases: ImageReleases) -> None:
    release = releases(2)
    await device.write(release.bundle, release.chunks, quiet)
    assert ecu.flash == ecu_image("1.0")
    await device.activate()
    await device.restart()
    assert ecu.flash == ecu_image("2.0")
    flashing = [service for service in ecu.services if service != 0x22]
    assert flashing == [0x10, 0x27, 0x27, 0x31, 0x34, *[0x36] * 6, 0x37, 0x31, 0x11]
    await device.confirm()
    assert [slot.state for slot in await device.slots()] == [SlotState.CONFIRMED, SlotState.ACTIVE]
    await device.revert()
    await device.restart()
    assert ecu.flash == ecu_image("1.0")
    assert [slot.state for slot in await device.slots()] == [SlotState.ACTIVE, SlotState.BAD]


async def test_an_ecu_that_lost_its_power_in_the_middle_is_given_back_what_it_ran(
    device: ShelfDevice, ecu: Ecu, releases: ImageReleases
) -> None:
    release = releases(2)
    await device.write(release.bundle, release.chunks, quiet)
    await device.activate()
    ecu.breaks_after = 3
    with pytest.raises(HandlerError, match="TimeoutException"):
        await device.restart()
    assert ecu.flash == b""
    await device.revert()
    await device.restart()
    assert ecu.flash == ecu_image("1.0")
    assert [slot.state for slot in await device.slots()] == [SlotState.ACTIVE, SlotState.BAD]
