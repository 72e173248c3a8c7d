"""A program that breaks its contract, and a device with one slot whose way back is the archive."""

import random
from pathlib import Path

import pytest

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.command import create
from node_agent.drivers.driver import Capabilities, SlotState, Surroundings
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO
from tests.contract.command_devices import device_image, make_flash, quick
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases
from update.durable import Disk
from update.errors import (
    DeviceImageError,
    FieldrelayError,
    HandlerError,
    NoWayBackError,
    ProgramError,
    SilentError,
    SlotError,
)


@pytest.fixture
def releases(tmp_path: Path) -> ImageReleases:
    return ImageReleases(tmp_path, "device", device_image)


def driver_of(folder: Path, slots: int = 1, **keys: object) -> ShelfDevice:
    if not (folder / "flash").exists():
        make_flash(folder)
    return create(quick(folder, slots, **keys), Surroundings(Disk(), folder / "state", DEMO, NoBootloader()))


def flash(folder: Path) -> bytes:
    return (folder / "flash" / "flash.bin").read_bytes()


def fault(folder: Path, text: str) -> None:
    (folder / "flash" / "fault").write_text(text)


async def staged(driver: ShelfDevice, releases: ImageReleases) -> None:
    await driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await driver.activate()


async def back(folder: Path, driver: ShelfDevice) -> None:
    (folder / "flash" / "fault").unlink(missing_ok=True)
    await driver.revert()
    await driver.restart()
    assert flash(folder) == device_image("1.0")
    assert [slot.state for slot in await driver.slots()] == [SlotState.ACTIVE, SlotState.BAD]


FAULTS = [
    ("garbage", ProgramError, "which is no answer of the contract"),
    ("long", ProgramError, "more than 65536 bytes"),
    ("hang", ProgramError, "stopped after 0.5 s"),
    ("status", ProgramError, "ended with status 3: the cable is loose"),
    ("fail", HandlerError, "the device said no"),
]


@pytest.mark.parametrize(("how", "refusal", "text"), FAULTS)
async def test_a_program_that_breaks_its_contract_at_activate_is_named_and_the_old_image_comes_back(
    tmp_path: Path, releases: ImageReleases, how: str, refusal: type[FieldrelayError], text: str
) -> None:
    driver = driver_of(tmp_path, activate_timeout_s=0.5 if how == "hang" else 60)
    await staged(driver, releases)
    fault(tmp_path, f"activate {how}")
    with pytest.raises(refusal, match=text):
        await driver.restart()
    await back(tmp_path, driver)


@pytest.mark.parametrize(("how", "refusal", "text"), FAULTS)
async def test_a_program_that_breaks_its_contract_at_stage_leaves_nothing_half_done(
    tmp_path: Path, releases: ImageReleases, how: str, refusal: type[FieldrelayError], text: str
) -> None:
    driver = driver_of(tmp_path, stage_timeout_s=0.5 if how == "hang" else 60)
    fault(tmp_path, f"stage {how}")
    with pytest.raises(refusal, match=text):
        await driver.write(releases(2).bundle, releases(2).chunks, quiet)
    assert [slot.state for slot in await driver.slots()] == [SlotState.ACTIVE, SlotState.EMPTY]
    with pytest.raises(SlotError):
        await driver.activate()
    assert flash(tmp_path) == device_image("1.0")


@pytest.mark.parametrize("how", ["garbage", "long", "hang", "status", "fail"])
async def test_a_probe_that_fails_means_a_silent_device(tmp_path: Path, how: str) -> None:
    driver = driver_of(tmp_path, probe_timeout_s=0.5 if how == "hang" else 60)
    fault(tmp_path, f"probe {how}")
    with pytest.raises(SilentError):
        await driver.slots()


async def test_a_program_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(SilentError, match="cannot start '/nonexistent'"):
        await driver_of(tmp_path, program=("/nonexistent",)).slots()


async def test_what_a_program_left_behind_ends_with_its_time(tmp_path: Path) -> None:
    script = tmp_path / "program"
    script.write_text(f"#!/bin/sh\n(sleep 600; touch {tmp_path}/late) &\necho $! > {tmp_path}/child\nsleep 600\n")
    script.chmod(0o755)
    with pytest.raises(SilentError, match="stopped after"):
        await driver_of(tmp_path, program=(str(script),), probe_timeout_s=2.0).slots()
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] in "ZX"


async def test_an_image_for_another_device_is_refused_before_it_is_touched(tmp_path: Path, releases: ImageReleases) -> None:
    driver, release = driver_of(tmp_path), releases.release("2.0", random.Random(1).randbytes(100))
    with pytest.raises(DeviceImageError, match="another device"):
        await driver.write(release.bundle, release.chunks, quiet)
    assert flash(tmp_path) == device_image("1.0")


async def test_power_that_fails_in_the_middle_of_the_only_image_is_made_good_by_the_next_restart(
    tmp_path: Path, releases: ImageReleases
) -> None:
    driver = driver_of(tmp_path)
    await staged(driver, releases)
    fault(tmp_path, "activate torn")
    with pytest.raises(ProgramError, match="status 7"):
        await driver.restart()
    assert [(slot.state.value, slot.booted, slot.trial) for slot in await driver.slots()] == [
        ("confirmed", False, False),
        ("pending", False, True),
    ]
    again = driver_of(tmp_path)
    await again.restart()
    await again.confirm()
    assert flash(tmp_path) == device_image("2.0")


async def test_power_that_fails_on_the_way_back_is_made_good_too(tmp_path: Path, releases: ImageReleases) -> None:
    driver = driver_of(tmp_path)
    await staged(driver, releases)
    await driver.restart()
    await driver.revert()
    fault(tmp_path, "activate torn")
    with pytest.raises(ProgramError):
        await driver.restart()
    assert [(slot.state.value, slot.booted) for slot in await driver.slots()] == [("confirmed", False), ("bad", True)]
    await back(tmp_path, driver_of(tmp_path))


async def test_an_image_that_says_another_version_than_the_release_is_taken_back(tmp_path: Path, releases: ImageReleases) -> None:
    driver, release = driver_of(tmp_path), releases.release("2.0", device_image("1.9"))
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    with pytest.raises(FieldrelayError, match=r"says version 1\.9"):
        await driver.restart()
    await back(tmp_path, driver)


async def test_one_slot_reverts_by_re_flashing_and_says_so(tmp_path: Path) -> None:
    one, two = driver_of(tmp_path).capabilities, driver_of(tmp_path, 2).capabilities
    assert (one.way_back, two.way_back) == ("by re-flashing", "by switching")
    assert not one.stage
    assert Capabilities(True, True, True, revert=False, resume=False, needs_power_cycle=False).way_back == "none"


async def test_without_an_archived_image_the_only_one_is_not_overwritten(tmp_path: Path, releases: ImageReleases) -> None:
    driver = driver_of(tmp_path, installed=None)
    with pytest.raises(NoWayBackError):
        await driver.write(releases(2).bundle, releases(2).chunks, quiet)
    assert flash(tmp_path) == device_image("1.0")
    assert [slot.state for slot in await driver.slots()] == [SlotState.ACTIVE, SlotState.EMPTY]


async def test_what_runs_is_read_back_into_the_archive(tmp_path: Path, releases: ImageReleases) -> None:
    driver = driver_of(tmp_path, installed=None, reads=True, archive=tmp_path / "archive")
    await staged(driver, releases)
    await driver.restart()
    assert len(list((tmp_path / "archive").glob("*.bin"))) == 2
    await back(tmp_path, driver)


async def test_accepted_the_first_update_has_no_way_back_and_the_second_has(tmp_path: Path, releases: ImageReleases) -> None:
    driver = driver_of(tmp_path, installed=None, accept_no_way_back=True)
    await staged(driver, releases)
    await driver.restart()
    with pytest.raises(SlotError, match="holds nothing that could be given"):
        await driver.revert()
    await driver.confirm()
    await driver.write(releases(3).bundle, releases(3).chunks, quiet)
    await driver.activate()
    await driver.restart()
    await driver.revert()
    await driver.restart()
    assert flash(tmp_path) == device_image("2.0")


async def test_a_device_with_two_slots_must_say_what_it_runs(tmp_path: Path, releases: ImageReleases) -> None:
    script = tmp_path / "program"
    script.write_text('#!/bin/sh\necho \'{"result": "ok", "state": "running"}\'\n')
    script.chmod(0o755)
    driver = driver_of(tmp_path, 2, program=(str(script),))
    with pytest.raises(ProgramError, match="neither version nor sha256"):
        await driver.write(releases(2).bundle, releases(2).chunks, quiet)
