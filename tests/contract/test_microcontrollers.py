"""What a microcontroller with MCUboot does when SMP asks, step by step: the simulated one and the real firmware alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.simulators.mcu import Mcu
from node_agent.drivers.smp.line import Datagrams, Line, Patience, Serial
from node_agent.drivers.smp.view import DeviceView
from tests.builders.mcuboot import make_image
from tests.builders.microcontroller import served
from tests.contract.mcu_devices import mcu_image
from tests.system.mcu_firmware import need_firmware
from tests.system.mcu_qemu import QUIET_S, McuBoard
from update.bundle.mcuboot_image import parse_image
from update.errors import BootloaderError


@dataclass(frozen=True, slots=True)
class Subject:
    """A device, the line to it, an image for it, and its power switch. `waits_s`: how long a start takes."""

    line: Line
    first: bytes
    image: bytes
    power_cycle: Callable[[], None]
    waits_s: float

    @property
    def image_hash(self) -> bytes:
        return parse_image(self.image).image_hash

    async def restart(self) -> DeviceView:
        """A reset that was asked for, and what runs then."""
        await self.line.reset()
        time.sleep(self.waits_s)  # noqa: ASYNC251 - the emulated console shows no sign of life (mcu_qemu)
        return await self.line.view()


@pytest.fixture(params=["simulated", pytest.param("real", marks=[pytest.mark.soak, pytest.mark.interop])])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with ExitStack() as stack:
        if request.param == "simulated":
            mcu = Mcu([mcu_image(1), b""])
            place = stack.enter_context(served(mcu))
            line = Line(Datagrams(str(place["host"]), int(str(place["udp_port"]))), Patience())
            yield Subject(line, mcu_image(1), mcu_image(2), mcu.start, 0.0)
        else:
            firmware = need_firmware()
            board = McuBoard(tmp_path, firmware)
            stack.enter_context(board.supervised())
            line = Line(Serial(str(board.place["port"])), Patience(answer_s=5.0))
            yield Subject(line, firmware.signed.read_bytes(), firmware.version("2.0.0", tmp_path), board.power_cycle, QUIET_S)


def _ignore(_offset: int) -> None:
    """Nobody looks at it."""


@pytest.mark.timeout(400)
async def test_a_trial_is_marked_swapped_taken_back_and_confirmed(subject: Subject) -> None:
    line = subject.line
    first = await line.view()
    assert (first.on_trial, first.other) == (False, None)
    assert first.running.image_hash == parse_image(subject.first).image_hash
    await line.upload(subject.image, _ignore)
    uploaded = await line.view()
    assert uploaded.holds(subject.image_hash)
    assert not uploaded.pending
    await line.try_once(subject.image_hash)
    assert (await line.view()).pending
    tried = await subject.restart()
    assert (tried.running.image_hash, tried.on_trial) == (subject.image_hash, True)
    assert tried.holds(first.running.image_hash)
    with pytest.raises(BootloaderError):  # the way back is not written over
        await line.upload(subject.image, _ignore)
    with pytest.raises(BootloaderError):
        await line.erase()
    await line.close()
    subject.power_cycle()
    reverted = await line.view()
    assert (reverted.running.image_hash, reverted.on_trial) == (first.running.image_hash, False)
    assert reverted.holds(subject.image_hash)
    await line.try_once(subject.image_hash)
    assert (await subject.restart()).on_trial
    await line.confirm()
    confirmed = await line.view()
    assert (confirmed.on_trial, confirmed.other) == (False, None)
    await line.close()
    subject.power_cycle()
    assert (await line.view()).running.image_hash == subject.image_hash
    await line.close()


@pytest.mark.timeout(400)
async def test_a_mark_is_taken_back_by_erasing_and_one_for_good_needs_no_confirmation(subject: Subject) -> None:
    line = subject.line
    await line.upload(subject.image, _ignore)
    await line.try_once(subject.image_hash)
    await line.erase()
    assert (await line.view()).other is None
    await line.upload(subject.image, _ignore)
    await line.keep_next(subject.image_hash)
    kept = await subject.restart()
    assert (kept.running.image_hash, kept.on_trial, kept.other) == (subject.image_hash, False, None)
    await line.close()


@pytest.mark.timeout(400)
async def test_what_makes_no_sense_is_refused(subject: Subject) -> None:
    line = subject.line
    with pytest.raises(BootloaderError):
        await line.try_once(bytes(32))
    with pytest.raises(BootloaderError):
        await line.try_once(parse_image(subject.first).image_hash)
    with pytest.raises(BootloaderError):
        await line.upload(make_image("1.0.0", b"body", magic=0x12345678), _ignore)
    assert (await line.view()).other is None
    await line.close()
