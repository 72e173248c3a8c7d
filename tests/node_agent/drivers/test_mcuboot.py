"""A microcontroller that is treated badly: lost and damaged answers, cuts, hanging images, and images that must not go in."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.simulators.mcu import Mark, Mcu, McuFaults
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Restart, SlotState, Surroundings
from node_agent.drivers.mcuboot import McubootDriver
from tests.builders.bundles import DEMO
from tests.builders.mcuboot import make_image
from tests.builders.microcontroller import quick, served
from tests.contract.devices import Release, quiet
from tests.contract.mcu_devices import mcu_image, mcu_release
from update.bundle.mcuboot_image import parse_image
from update.durable import Disk
from update.errors import (
    BootloaderError,
    ConfigurationError,
    DescriptionError,
    DeviceImageError,
    FieldrelayError,
    HandlerError,
    RollbackError,
    SignatureError,
    SilentError,
    SlotError,
)

REQUESTS = 60
"""More than a whole update of the small image takes."""


@dataclass(slots=True)
class Bench:
    """One device with version 1, and drivers for it."""

    folder: Path
    stack: ExitStack
    mcu: Mcu = field(default_factory=lambda: Mcu([mcu_image(1), b""]))
    place: dict[str, object] = field(default_factory=dict)

    def driver(self, **keys: object) -> McubootDriver:
        if not self.place:
            self.place = self.stack.enter_context(served(self.mcu))
        return McubootDriver(quick(self.place, **keys), Surroundings(Disk(), self.folder / "state", DEMO, NoBootloader()))

    def release(self, version: int, data: bytes | None = None) -> Release:
        return mcu_release(self.folder, version, data)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path, stack)


async def _update(driver: McubootDriver, release: Release) -> None:
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    assert await driver.restart() is Restart.DONE
    await driver.confirm()


@pytest.mark.parametrize("fault", ["lost_requests", "lost_answers", "late_answers", "damaged_answers"])
async def test_an_update_gets_through_whichever_answer_is_lost(bench: Bench, fault: str) -> None:
    driver, release = bench.driver(), bench.release(2)
    for number in range(0, REQUESTS, 5):
        bench.mcu.places[:] = [mcu_image(1), b""]
        bench.mcu.mark, bench.mcu.swapped, bench.mcu.image_ok, bench.mcu.requests = Mark.NONE, False, True, 0
        bench.mcu.faults = McuFaults(**{fault: (number,)})  # type: ignore[arg-type] # its fields
        await _update(driver, release)
        assert (bench.mcu.version(), bench.mcu.image_ok) == ("2.0.0", True)


async def test_a_power_cut_at_any_request_leaves_a_whole_image_and_the_update_can_be_done_again(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    for number in range(0, REQUESTS, 4):
        bench.mcu.places[:] = [mcu_image(1), b""]
        bench.mcu.mark, bench.mcu.swapped, bench.mcu.image_ok, bench.mcu.requests = Mark.NONE, False, True, 0
        bench.mcu.faults = McuFaults(restart_at=(number,))
        for _ in range(3):
            try:
                await _update(driver, release)
                break
            except FieldrelayError:
                parse_image(bench.mcu.places[0])
        assert (bench.mcu.version(), bench.mcu.image_ok) == ("2.0.0", True)


async def test_an_upload_goes_on_where_it_was_and_what_is_told_never_falls(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    bench.mcu.faults = McuFaults(lost_answers=(12,))
    told: list[int] = []
    await driver.write(release.bundle, release.chunks, lambda done, _total: told.append(done))
    assert told == sorted(told)
    assert bench.mcu.requests < 2 * len(release.root) // bench.mcu.buffer_bytes + 20
    assert bench.mcu.places[1] == release.root


async def test_a_hanging_image_is_power_cycled_and_the_old_one_runs(bench: Bench) -> None:
    marker = bench.folder / "cycled"
    driver, release = bench.driver(power_cycle=("touch", str(marker)), start_timeout_s=2.0), bench.release(2)
    bench.mcu.faults = McuFaults(silent_versions=("2.0.0",))
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    cycling = asyncio.create_task(_cycle(bench.mcu, marker))
    assert await driver.restart() is Restart.DONE
    await cycling
    slots = await driver.slots()
    assert [(slot.state, slot.booted) for slot in slots] == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_an_image_that_hangs_later_is_reverted_by_its_power(bench: Bench) -> None:
    marker = bench.folder / "cycled"
    driver, release = bench.driver(power_cycle=("touch", str(marker))), bench.release(2)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    await driver.restart()
    bench.mcu.faults = McuFaults(silent_versions=("2.0.0",))
    assert [slot.trial for slot in await driver.slots()] == [False, True]
    cycling = asyncio.create_task(_cycle(bench.mcu, marker))
    await driver.revert()
    await cycling
    assert [slot.state for slot in await driver.slots()] == [SlotState.ACTIVE, SlotState.BAD]


async def _cycle(mcu: Mcu, marker: Path) -> None:
    """The power switch: it works once the command ran."""
    while not marker.exists():  # noqa: ASYNC110 - another program makes it
        await asyncio.sleep(0.02)
    mcu.start()


async def test_without_a_power_switch_a_mute_device_is_named(bench: Bench) -> None:
    driver, release = bench.driver(start_timeout_s=0.5, tries=1), bench.release(2)
    bench.mcu.faults = McuFaults(silent_versions=("2.0.0",))
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    with pytest.raises(SilentError):
        await driver.restart()
    for word in (driver.slots, driver.revert, driver.confirm):
        with pytest.raises(SilentError):
            await word()
    with pytest.raises(HandlerError):
        await bench.driver(power_cycle=("false",), start_timeout_s=0.5, tries=1).revert()


async def test_a_restart_that_does_not_come_is_noticed(bench: Bench) -> None:
    driver, release = bench.driver(start_timeout_s=0.5), bench.release(2)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    bench.mcu.faults = McuFaults(keeps_running=True)
    with pytest.raises(SilentError):
        await driver.restart()


async def test_a_device_in_serial_recovery_is_left_alone(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    bench.mcu.faults = McuFaults(recovery=True)
    with pytest.raises(BootloaderError, match="recovery"):
        await driver.write(release.bundle, release.chunks, quiet)
    assert bench.mcu.places == [mcu_image(1), b""]


async def test_an_image_that_somebody_else_marked_is_not_overwritten(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    bench.mcu.places[1], bench.mcu.mark = mcu_image(9), Mark.TEST
    with pytest.raises(SlotError):
        await driver.write(release.bundle, release.chunks, quiet)
    assert bench.mcu.places[1] == mcu_image(9)


async def test_an_image_that_vanished_from_the_device_is_no_longer_written(bench: Bench) -> None:
    driver, release = bench.driver(), bench.release(2)
    await driver.write(release.bundle, release.chunks, quiet)
    bench.mcu.places[1] = mcu_image(9)
    assert (await driver.slots())[1].state is SlotState.EMPTY
    with pytest.raises(SlotError):
        await driver.activate()


async def test_a_device_without_a_known_image_has_no_way_back_once_it_confirmed(bench: Bench) -> None:
    driver = bench.driver()
    await _update(driver, bench.release(2))
    assert [slot.state for slot in await driver.slots()] == [SlotState.EMPTY, SlotState.ACTIVE]
    with pytest.raises(SlotError):
        await driver.revert()
    assert bench.mcu.version() == "2.0.0"


@pytest.mark.parametrize(
    ("data", "keys", "error"),
    [
        (b"no image" * 10, {}, DeviceImageError),
        (mcu_image(2)[:-1], {}, DeviceImageError),
        (mcu_image(2), {"slot_bytes": 1024}, FieldrelayError),
        (make_image("2.0.0", b"body", counter=4), {}, RollbackError),
        (mcu_image(2), {}, RollbackError),
        (make_image("2.0.0", b"body", counter=5), {"device": "motor"}, DescriptionError),
        (make_image("2.0.0", b"body", counter=5), {"image_key": Path("key.pem")}, SignatureError),
    ],
)
async def test_what_must_not_go_in_is_refused_before_anything_is_sent(
    bench: Bench, data: bytes, keys: dict[str, object], error: type[FieldrelayError]
) -> None:
    delivered = make_image("1.0.0", b"delivered", counter=5)
    (bench.folder / "delivered.bin").write_bytes(delivered)
    pem = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (bench.folder / "key.pem").write_bytes(pem)
    bench.mcu.places[0] = delivered
    rooted = {name: bench.folder / value if isinstance(value, Path) else value for name, value in keys.items()}
    driver, release = bench.driver(installed=bench.folder / "delivered.bin", **rooted), bench.release(2, data)
    with pytest.raises(error):
        await driver.write(release.bundle, release.chunks, quiet)
    assert bench.mcu.places == [delivered, b""]
    assert (await driver.slots())[1].state is SlotState.EMPTY


async def test_the_image_that_runs_is_not_written_beside_itself(bench: Bench) -> None:
    release = bench.release(1)
    with pytest.raises(SlotError):
        await bench.driver().write(release.bundle, release.chunks, quiet)


async def test_an_image_too_large_for_the_device_is_its_refusal(bench: Bench) -> None:
    bench.mcu.slot_bytes = 1000
    with pytest.raises(BootloaderError):
        await bench.driver().write(bench.release(2).bundle, bench.release(2).chunks, quiet)
    assert bench.mcu.places[1] == b""


@pytest.mark.parametrize("keys", [{}, {"port": "/dev/ttyS0", "host": "127.0.0.1"}])
def test_a_device_has_one_line(tmp_path: Path, keys: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        McubootDriver(quick(keys), Surroundings(Disk(), tmp_path, DEMO, NoBootloader()))


async def test_a_port_that_is_not_there_is_a_mute_device(tmp_path: Path) -> None:
    config = quick({"port": str(tmp_path / "tty")}, tries=1)
    with pytest.raises(SilentError):
        await McubootDriver(config, Surroundings(Disk(), tmp_path, DEMO, NoBootloader())).slots()
