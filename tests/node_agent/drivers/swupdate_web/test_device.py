"""The rules of `node_agent.drivers.driver`, as far as a stock SWUpdate's webserver lets a driver keep them."""

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Capabilities, Restart, Surroundings, bundle_identity
from node_agent.drivers.registry import make_driver
from node_agent.drivers.swupdate_web.device import SwupdateWebConfig, SwupdateWebDriver
from node_agent.drivers.swupdate_web.webserver import _read
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.builders.swupdate_device import WebDevice, web_device
from tests.contract.devices import FileChunks, quiet
from tests.replay import Killed
from update.bundle.verified import VerifiedBundle
from update.durable import Disk, Operation
from update.errors import (
    ConfigurationError,
    HandlerError,
    HardwareError,
    SlotError,
    SlowError,
    UnreachableError,
    UnsupportedError,
)

CHUNKS = FileChunks({})
Slots = tuple[tuple[str, str, bool, bool], ...]
FACTORY: Slots = (("a", "active", True, False), ("b", "empty", False, False))


def release(folder: Path, version: str, hardware: str = "1.0") -> VerifiedBundle:
    content = f"root file system {version}".encode()
    text = describe(images=[image("rootfs.img", content)], version=version, hardware=[hardware])
    return verified(signed(folder, text, {"rootfs.img": content}, name=f"release-{version}-{hardware}.swu"))


@dataclass(slots=True)
class Site:
    """A device and its driver; `again` is a driver as after a restart of the agent."""

    folder: Path
    device: WebDevice
    driver: SwupdateWebDriver
    options: dict[str, object]

    def again(self, disk: Disk | None = None, /, **options: object) -> SwupdateWebDriver:
        self.options |= options
        surroundings = Surroundings(disk or Disk(), self.folder / "state", DEMO, NoBootloader())
        made = make_driver("swupdate-web", self.options, self.folder, surroundings)
        assert isinstance(made, SwupdateWebDriver)
        self.driver = made
        return made

    async def states(self) -> Slots:
        return tuple((slot.name, slot.state.value, slot.booted, slot.trial) for slot in await self.driver.slots())

    async def write(self, version: str) -> VerifiedBundle:
        bundle = release(self.folder, version)
        await self.driver.write(bundle, CHUNKS, quiet)
        return bundle

    async def try_(self, version: str) -> VerifiedBundle:
        bundle = await self.write(version)
        await self.driver.activate()
        assert await self.driver.restart() is Restart.DONE
        return bundle

    async def install(self, version: str) -> VerifiedBundle:
        bundle = await self.try_(version)
        await self.driver.confirm()
        return bundle


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with web_device("1.0") as device:
        options: dict[str, object] = {
            "url": device.url,
            "probe_url": device.probe_url,
            "version_pattern": "version=(.*)",
            "probe_interval_s": 0.01,
        }
        made = Site(tmp_path, device, None, options)  # type: ignore[arg-type]  # made in the next line
        made.again()
        yield made


async def test_writing_keeps_the_bundle_here_and_the_device_hears_nothing(site: Site) -> None:
    assert await site.states() == FACTORY
    seen: list[tuple[int, int]] = []
    bundle = release(site.folder, "2.0")
    written = await site.driver.write(bundle, CHUNKS, lambda done, total: seen.append((done, total)))
    size = bundle.file.stat().st_size
    assert (written.slot, written.image_bytes, seen[-1]) == ("b", size, (size, size))
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, False))
    assert (await site.driver.write(bundle, CHUNKS, quiet)).reused_bytes == size
    assert (site.device.uploads, site.device.starts, site.device.restarts) == ([], "1.0", 0)


async def test_a_whole_update_and_the_next_one(site: Site) -> None:
    first = await site.write("2.0")
    await site.driver.activate()
    await site.driver.activate()
    assert site.device.uploads == [first.file.read_bytes()]
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, True))
    with pytest.raises(SlotError):
        await site.driver.confirm()
    with pytest.raises(SlotError):
        await site.write("3.0")
    assert await site.driver.restart() is Restart.DONE
    assert (site.device.running, site.device.restarts) == ("2.0", 1)
    assert await site.states() == (("a", "confirmed", False, False), ("b", "pending", True, True))
    await site.driver.confirm()
    await site.driver.confirm()
    assert await site.states() == (("a", "empty", False, False), ("b", "active", True, False))  # nothing was kept of 1.0
    second = await site.install("3.0")
    assert await site.states() == (("a", "active", True, False), ("b", "confirmed", False, False))
    slots = await site.driver.slots()
    assert [slot.version for slot in slots] == ["3.0", "2.0"]
    assert [slot.bundle for slot in slots] == [bundle_identity(second), bundle_identity(first)]


async def test_what_the_device_refuses_is_told_with_its_reason_and_may_be_tried_again(site: Site) -> None:
    await site.write("2.0")
    site.device.complaint = "no space left on /dev/mmcblk0p2"
    with pytest.raises(HandlerError, match="no space left on /dev/mmcblk0p2; Installation failed !"):
        await site.driver.activate()
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, False))
    site.device.complaint = ""
    await site.driver.activate()
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, True))


async def test_an_end_of_something_else_is_not_taken_for_ones_own(site: Site) -> None:
    site.device.stale = ('{"type":"status","status":"SUCCESS"}', '{"type":"status","status":"FAILURE"}', "[]", "x", '{"type":1}')
    await site.write("2.0")
    await site.driver.activate()
    assert site.device.starts == "2.0"


async def test_when_nobody_can_tell_what_became_of_an_upload_the_next_word_installs_again(site: Site) -> None:
    await site.install("2.0")
    second = await site.write("3.0")
    site.device.hangs_up = True
    with pytest.raises(UnreachableError, match="ended before the installation did"):
        await site.driver.activate()
    site.device.hangs_up = False
    site.again()
    assert await site.states() == (("a", "pending", False, True), ("b", "active", True, False))
    assert await site.driver.restart() is Restart.DONE
    assert [second.file.read_bytes()] * 2 == site.device.uploads[1:]
    assert site.device.running == "3.0"


async def test_a_trial_that_perhaps_never_came_to_be_is_left_by_installing_what_ran(site: Site) -> None:
    first = await site.install("2.0")
    await site.write("3.0")
    site.device.hangs_up = True
    with pytest.raises(UnreachableError):
        await site.driver.activate()
    with pytest.raises(UnreachableError):
        await site.driver.revert()
    site.device.hangs_up = False
    site.device.starts = "3.0"  # it had installed it
    await site.driver.revert()
    assert site.device.uploads[-1] == first.file.read_bytes()
    assert site.device.starts == "2.0"
    assert await site.states() == (("a", "bad", False, False), ("b", "active", True, False))


async def test_a_device_that_says_nothing_is_given_up(site: Site) -> None:
    site.again(silence_timeout_s=0.2)
    await site.write("2.0")
    site.device.silent = True
    with pytest.raises(SlowError, match=r"silent for 0\.2 s"):
        await site.driver.activate()
    site.again(install_timeout_s=0.3, silence_timeout_s=60)
    with pytest.raises(SlowError, match=r"within 0\.3 s"):
        await site.driver.activate()


async def test_a_device_that_cannot_be_reached_has_received_nothing(site: Site) -> None:
    await site.write("2.0")
    site.again(url="http://127.0.0.1:1")
    with pytest.raises(UnreachableError, match="nothing was sent"):
        await site.driver.activate()
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, False))
    site.again(url=site.device.url, probe_url="http://127.0.0.1:1/version")
    with pytest.raises(UnreachableError):
        await site.driver.slots()


async def test_a_trial_that_the_device_gave_up_is_seen_and_can_be_tried_with_another_bundle(site: Site) -> None:
    await site.write("2.0")
    await site.driver.activate()
    site.device.falls_back = True
    assert await site.driver.restart() is Restart.DONE
    assert await site.states() == (("a", "active", True, False), ("b", "bad", False, False))
    for word in (site.driver.activate, site.driver.confirm):
        with pytest.raises(SlotError):
            await word()
    await site.driver.revert()
    assert len(site.device.uploads) == 1
    site.device.falls_back = False
    await site.install("3.0")
    assert site.device.running == "3.0"


async def test_a_trial_is_left_by_giving_the_device_again_what_it_ran(site: Site) -> None:
    first = await site.install("2.0")
    await site.try_("3.0")
    await site.driver.revert()
    await site.driver.revert()
    assert site.device.uploads[2:] == [first.file.read_bytes()]
    assert await site.driver.restart() is Restart.DONE
    assert site.device.running == "2.0"
    assert await site.states() == (("a", "bad", False, False), ("b", "active", True, False))


async def test_an_activation_is_left_before_the_restart(site: Site) -> None:
    first = await site.install("2.0")
    await site.write("3.0")
    await site.driver.activate()
    await site.driver.revert()
    assert site.device.starts == "2.0"
    assert site.device.uploads[-1] == first.file.read_bytes()
    assert await site.states() == (("a", "bad", False, False), ("b", "active", True, False))


async def test_a_confirmed_version_is_left_for_the_one_before(site: Site) -> None:
    await site.install("2.0")
    await site.install("3.0")
    site.again()
    await site.driver.revert()
    assert await site.driver.restart() is Restart.DONE
    assert site.device.running == "2.0"


async def test_there_is_no_way_back_to_what_was_never_given(site: Site) -> None:
    await site.try_("2.0")
    with pytest.raises(SlotError, match="no whole bundle of slot a was kept"):
        await site.driver.revert()
    assert len(site.device.uploads) == 1
    site.again(falls_back=True)  # then it is for the device's bootloader
    await site.driver.revert()
    assert len(site.device.uploads) == 1
    site.device.starts = "1.0"
    assert await site.driver.restart() is Restart.DONE
    assert await site.states() == (("a", "active", True, False), ("b", "bad", False, False))


async def test_what_was_only_written_is_not_reverted(site: Site) -> None:
    with pytest.raises(SlotError):
        await site.driver.revert()
    await site.install("2.0")
    await site.write("3.0")
    await site.driver.revert()
    assert len(site.device.uploads) == 1


async def test_without_keeping_what_ran_there_is_nothing_to_return_to(site: Site) -> None:
    site.again(keep_previous=False)
    assert site.driver.capabilities == Capabilities(
        stage=True, trial=False, hold=False, revert=False, resume=False, needs_power_cycle=False
    )
    await site.install("2.0")
    await site.install("3.0")
    assert sorted(path.name for path in (site.folder / "state/swupdate-web").glob("*.swu")) == ["a.swu"]
    with pytest.raises(SlotError):
        await site.driver.revert()
    site.again(falls_back=True)
    assert (site.driver.capabilities.trial, site.driver.capabilities.revert) == (True, True)


async def test_a_damaged_copy_is_not_sent(site: Site) -> None:
    await site.write("2.0")
    kept = site.folder / "state/swupdate-web/b.swu"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(SlotError, match="no whole bundle"):
        await site.driver.activate()
    assert site.device.uploads == []
    await site.write("2.0")  # it is copied again
    await site.driver.activate()


async def test_what_cannot_be_told_apart_or_is_for_other_devices_is_refused_before_it_is_kept(site: Site) -> None:
    with pytest.raises(SlotError, match="another version"):
        await site.write("1.0")
    with pytest.raises(HardwareError):
        await site.driver.write(release(site.folder, "2.0", "9.9"), CHUNKS, quiet)
    with pytest.raises(UnsupportedError):
        await site.driver.write(_Rauc(), CHUNKS, quiet)  # type: ignore[arg-type]  # not a .swu
    assert not (site.folder / "state/swupdate-web/b.swu").exists()
    assert await site.states() == FACTORY


class _Rauc:
    """What is no `.swu`."""

    file = Path("x.raucb")


async def test_what_was_installed_by_hand_is_taken_as_it_is(site: Site) -> None:
    await site.install("2.0")
    site.device.running = site.device.starts = "7.7"
    slots = await site.driver.slots()
    assert [(slot.version, slot.bundle, slot.booted) for slot in slots] == [(None, None, False), ("7.7", None, True)]
    await site.install("3.0")
    assert site.device.running == "3.0"


async def test_a_device_that_does_not_restart_is_named(site: Site) -> None:
    site.again(restart_timeout_s=0.1)
    await site.write("2.0")
    await site.driver.activate()
    site.device.ignores_restart = True
    with pytest.raises(HandlerError, match="post-update command"):
        await site.driver.restart()
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, True))
    site.device.ignores_restart, site.device.away_after_restart = False, 1 << 30
    with pytest.raises(HandlerError, match="has not come back"):
        await site.driver.restart()
    site.device.away = 0
    assert await site.states() == (("a", "confirmed", False, False), ("b", "pending", True, True))


async def test_a_device_that_restarts_itself_is_waited_for_and_not_told(site: Site) -> None:
    site.again(restarts_itself=True, restart_timeout_s=0.3)
    await site.write("2.0")
    await site.driver.activate()
    site.device.power_on()
    site.device.away = 3
    assert await site.driver.restart() is Restart.DONE
    assert await site.states() == (("a", "confirmed", False, False), ("b", "pending", True, True))
    await site.driver.confirm()
    await site.write("3.0")
    await site.driver.activate()
    site.device.falls_back = True
    site.device.power_on()
    assert await site.driver.restart() is Restart.DONE
    assert await site.states() == (("a", "bad", False, False), ("b", "active", True, False))
    assert site.device.restarts == 0


async def test_a_boot_id_proves_a_restart_that_nobody_saw(site: Site) -> None:
    site.again(boot_id_pattern="boot=(.*)", restart_timeout_s=5)
    await site.write("2.0")
    await site.driver.activate()
    site.device.away_after_restart, site.device.falls_back = 0, True
    assert await site.driver.restart() is Restart.DONE
    assert await site.states() == (("a", "active", True, False), ("b", "bad", False, False))


async def test_another_boot_of_the_old_version_ends_a_trial(site: Site) -> None:
    site.again(boot_id_pattern="boot=(.*)")
    await site.write("2.0")
    await site.driver.activate()
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, True))
    site.device.boots += 1
    assert await site.states() == (("a", "active", True, False), ("b", "bad", False, False))


async def test_a_boot_proves_nothing_of_a_trial_that_perhaps_never_came_to_be(site: Site) -> None:
    site.again(boot_id_pattern="boot=(.*)")
    await site.write("2.0")
    site.device.hangs_up = True
    with pytest.raises(UnreachableError):
        await site.driver.activate()
    site.device.hangs_up = False
    site.device.boots += 1
    assert await site.states() == (("a", "active", True, False), ("b", "pending", False, True))
    assert await site.driver.restart() is Restart.DONE
    assert site.device.running == "2.0"


async def test_a_command_of_the_integrators_probes_and_another_confirms(site: Site) -> None:
    answer, confirmed = site.folder / "version", site.folder / "confirmed"
    answer.write_text("1.0\n")
    print_it = [sys.executable, "-c", f"print(open({str(answer)!r}).read())"]
    confirm = [sys.executable, "-c", f"open({str(confirmed)!r}, 'x')"]
    site.options |= {"version_pattern": r"(\S+)", "probe_command": print_it, "confirm_command": confirm}
    site.again(probe_url="", restart_timeout_s=0.1)
    await site.write("2.0")
    await site.driver.activate()
    answer.write_text("2.0\n")
    assert await site.states() == (("a", "confirmed", False, False), ("b", "pending", True, True))  # it restarted by itself
    await site.driver.confirm()
    await site.driver.confirm()  # and the command is not run again
    assert confirmed.exists()
    answer.unlink()
    with pytest.raises(UnreachableError, match="the probe"):
        await site.driver.slots()
    answer.write_text("\n")
    with pytest.raises(HandlerError, match="holds no version"):
        await site.driver.slots()


@pytest.mark.parametrize(
    "wrong",
    [{"probe_url": ""}, {"probe_command": ["x"]}, {"version_pattern": "x"}, {"boot_id_pattern": "("}, {"url": "device"}],
    ids=str,
)
async def test_a_wrong_configuration_is_named(site: Site, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="swupdate-web"):
        site.again(None, **wrong)


async def test_killed_anywhere_the_same_update_succeeds_afterwards(tmp_path: Path) -> None:
    """Stop at every operation of the disk in turn: the device runs something whole, and every word can be said again."""
    number = 0
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        async with web_device("1.0") as device:
            options: dict[str, object] = {
                "url": device.url,
                "probe_url": device.probe_url,
                "version_pattern": "version=(.*)",
                "probe_interval_s": 0.001,
            }
            site = Site(folder, device, SwupdateWebDriver(_config(options), _ground(folder)), options)
            await site.install("2.0")
            fuse = _Fuse(number)
            site.again(Disk(fuse.burn))
            fuse.armed = True
            try:
                await site.install("3.0")
            except Killed:
                fuse.armed = False
            else:
                break
            site.again()
            device.power_on()
            assert device.running in {"2.0", "3.0"}
            await _finish(site)
            assert device.running == "3.0"
            assert {state for _, state, _, _ in await site.states()} == {"active", "confirmed"}
        number += 1
    assert number > 20


async def _finish(site: Site) -> None:
    """What the agent does after a restart of its own."""
    slots = {slot.name: slot for slot in await site.driver.slots()}
    if not slots["a"].booted:
        if slots["a"].state.value != "pending":
            await site.write("3.0")
        await site.driver.activate()
        await site.driver.restart()
    await site.driver.confirm()


def _config(options: dict[str, object]) -> SwupdateWebConfig:
    return SwupdateWebConfig(**options)  # type: ignore[arg-type]  # checked by pydantic


def _ground(folder: Path) -> Surroundings:
    return Surroundings(Disk(), folder / "state", DEMO, NoBootloader())


@dataclass(slots=True)
class _Fuse:
    """Kills at the given operation, once armed."""

    length: int
    armed: bool = False
    burnt: int = 0

    def burn(self, _operation: Operation) -> None:
        if self.armed:
            if self.burnt == self.length:
                raise Killed
            self.burnt += 1


@settings(max_examples=100)
@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str))
def test_no_message_breaks_the_reader(text: str) -> None:
    assert all(isinstance(value, str) for pair in _read(text).items() for value in pair)


def test_a_message_is_read_as_it_was_said() -> None:
    assert _read('{"type": "status", "status": "RUN", "number": 1}') == {"type": "status", "status": "RUN"}
