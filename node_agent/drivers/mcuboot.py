"""A microcontroller with MCUboot, reached over SMP by a serial port or UDP.

A slot is an image, named `a` or `b`, whatever place of flash MCUboot has it in. The words of `Driver`:

- `write` refuses a device in serial recovery, one on trial, and one on which an image is marked already (the device itself would
  overwrite it). The image of the bundle is read and its hash, its signature where a key is given, and its security counter are
  judged before the first byte is sent. Afterwards the hash that the device lists must be the image's.
- `activate` marks it for one start. `restart` resets the device and waits until it answers; one that stays mute is power-cycled,
  if there is a command for that, which ends its trial.
- `confirm` keeps what was activated. Until then any start, also one that nobody asked for, is the way back.
- `revert` leaves a trial to the next start, takes a mark back by erasing, and returns from a confirmed image by uploading the
  previous one again, which is kept, and marking it for good: it was confirmed on this device before. Where it is not at hand (of
  a device that was not delivered with a known image) there is no way back, and the slot says EMPTY.

A device that is mute while it should be on trial can be reverted by its power only; without `power_cycle` the words fail.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import (
    Capabilities,
    ChunkSource,
    Progress,
    Restart,
    SlotState,
    SlotStatus,
    Surroundings,
    Written,
    bundle_identity,
    need_swu,
)
from node_agent.drivers.slots.records import PartRecord, SlotRecord
from node_agent.drivers.smp.images import Images, KnownImage, read_known
from node_agent.drivers.smp.standing import Standing, activated, hanging
from node_agent.drivers.smp.view import DeviceView
from node_agent.programs import run_program
from update.bundle.entries import Entry, Handler
from update.bundle.mcuboot_signature import load_image_key, verify_signature
from update.bundle.reader import open_payload
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.digest import Digest
from update.errors import (
    ConfigurationError,
    DescriptionError,
    HandlerError,
    MissingExtraError,
    ReadBackError,
    RollbackError,
    SilentError,
    SlotError,
)
from update.provided import read_provided

if TYPE_CHECKING:
    from node_agent.drivers.smp.line import Line

_LOG = logging.getLogger(__name__)
_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_PAUSE_S: Final = 0.2
_BLOCK_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class McubootConfig:
    """The device: `port` of a serial line, or `host` of one with UDP."""

    port: str = ""
    baudrate: Annotated[int, Field(ge=300, le=8_000_000)] = 115_200
    host: str = ""
    udp_port: _Port = 1337
    image: Annotated[int, Field(ge=0, le=15)] = 0
    slots: tuple[str, str] = ("a", "b")
    selection: str = ""
    device: str = "mcu"
    slot_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    image_key: Path | None = None
    installed: Path | None = None
    power_cycle: tuple[str, ...] = ()
    power_cycle_timeout_s: _Seconds = 30.0
    answer_timeout_s: _Seconds = 2.5
    erase_timeout_s: _Seconds = 40.0
    settle_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    start_timeout_s: _Seconds = 60.0
    tries: Annotated[int, Field(ge=1, le=100)] = 8


class McubootDriver:
    """`Driver` for one device. `revert` out of a confirmed image is a new upload of the previous one."""

    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False)

    def __init__(self, config: McubootConfig, surroundings: Surroundings) -> None:
        """Errors: `ConfigurationError`, `MissingExtraError`."""
        if bool(config.port) == bool(config.host):
            raise ConfigurationError("driver.mcuboot: name either port (serial) or host (UDP)")
        self._config = config
        self._hardware = surroundings.hardware
        self._images = Images(surroundings.disk, surroundings.state / "slots", config.slots, config.installed)
        self._key = None if config.image_key is None else load_image_key(read_provided(config.image_key))
        self._line = _make_line(config)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both images. A mute device with an open trial and a `power_cycle` is taken for one whose new image hangs."""
        async with self._open() as line:
            try:
                standing = await self._standing(line)
            except SilentError:
                tried = activated(self._images)
                if tried is None or not self._config.power_cycle:
                    raise
                return hanging(self._images, tried)
        return await asyncio.to_thread(standing.slots)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Judge the image, send it, and see that the device has it."""
        native = need_swu(bundle)
        async with self._open() as line:
            standing = await self._standing(line)
            standing.require_room()
            selection = native.description.select(self._hardware, *self._choice())
            entry = self._entry(selection.images)
            image = await asyncio.to_thread(self._load, native, entry)
            self._judge(image, standing)
            identity, in_place = bundle_identity(native), standing.view.holds(image.image_hash)
            parts = await asyncio.to_thread(self._begin, standing.other, identity, image)
            if not in_place:
                await line.upload(image.data, _rising(progress, len(image.data)))
                _require_arrival(await line.view(), image)
            progress(len(image.data), len(image.data))
            record = SlotRecord(SlotState.PENDING, selection.version, identity, parts=parts)
            await asyncio.to_thread(self._images.write, standing.other, record)
        size = len(image.data)
        return Written(standing.other, size, 0, size if in_place else 0, 0, {entry.device: image.sha256})

    async def activate(self) -> None:
        """Mark the written image for one start."""
        async with self._open() as line:
            standing = await self._standing(line)
            image = await asyncio.to_thread(standing.to_activate)
            if image is not None:
                await line.try_once(image.image_hash)
            name = standing.candidate
            record = replace(self._images.record(name), activated=True)
            await asyncio.to_thread(self._images.write, name, record)

    async def restart(self) -> Restart:
        """Reset the device and wait for it; power-cycle it where it stays mute."""
        async with self._open() as line:
            before = await _seen(line)
            if before is not None:
                await line.reset()
            if before is None or not await self._comes_back(line, before):
                await self._cycle(line)
        return Restart.DONE

    async def confirm(self) -> None:
        """Keep the running image."""
        async with self._open() as line:
            standing = await self._standing(line)
            standing.require_confirmable()
            if standing.view.on_trial:
                await line.confirm()
                if (await line.view()).on_trial:
                    raise ReadBackError(f"the device granted to confirm slot {standing.running}, and still has it on trial")
            if standing.is_known:
                record = replace(self._images.record(standing.running), state=SlotState.CONFIRMED, activated=False)
                await asyncio.to_thread(self._images.write, standing.running, record)

    async def revert(self) -> None:
        """Give the image on trial up, or return from a confirmed one to the one before it."""
        async with self._open() as line:
            standing = await self._standing_or_cycle(line)
            view, other = standing.view, self._images.record(standing.other)
            if view.on_trial:
                await asyncio.to_thread(self._give_up, standing.running)
            elif other.state is SlotState.PENDING and (other.activated or view.pending):
                await asyncio.to_thread(self._give_up, standing.other)
                if view.pending:
                    await line.erase()
            elif other.state is SlotState.CONFIRMED:
                await self._return(line, standing)
            elif view.pending:
                await line.erase()
            elif other.state is SlotState.EMPTY:
                raise SlotError(f"slot {standing.other} holds nothing complete; the device stays on slot {standing.running}")

    async def _return(self, line: "Line", standing: Standing) -> None:
        """First the record, then the device: a slot that was left must not be returned to by the next revert."""
        image = await asyncio.to_thread(self._images.image, standing.other)
        if image is None:
            raise SlotError(f"the image of slot {standing.other} is not at hand; the device stays on slot {standing.running}")
        await asyncio.to_thread(self._give_up, standing.running)
        if standing.view.pending:
            return
        if not standing.view.holds(image.image_hash):
            await line.upload(image.data, _quiet)
            _require_arrival(await line.view(), image)
        await line.keep_next(image.image_hash)

    def _choice(self) -> tuple[str, str]:
        software_set, _, mode = self._config.selection.partition(",")
        return software_set, mode

    def _entry(self, images: tuple[Entry, ...]) -> Entry:
        found = [entry for entry in images if entry.device == self._config.device]
        if len(found) != 1 or found[0].type is not Handler.RAW or found[0].offset:
            devices = ", ".join(entry.device for entry in images)[:200]
            wanted = f"one raw image for the device {self._config.device!r}"
            raise DescriptionError(f"the bundle must bring {wanted}; it brings images for {devices or 'none'}")
        return found[0]

    def _load(self, bundle: VerifiedBundle, entry: Entry) -> KnownImage:
        with open_payload(bundle, entry, max_bytes=self._config.slot_bytes) as payload:
            data = b"".join(iter(lambda: payload.read(_BLOCK_BYTES), b""))
        return read_known(data, max_bytes=self._config.slot_bytes)

    def _judge(self, image: KnownImage, standing: Standing) -> None:
        """`has` is None where nobody here knows what runs, or where it has no counter."""
        if self._key is not None:
            verify_signature(image.meaning, self._key)
        if image.image_hash == standing.view.running.image_hash:
            raise SlotError(f"the device runs image {image.meaning.version} already, and MCUboot cannot try it beside itself")
        known = self._images.image(standing.running) if standing.is_known else None
        has, wants = None if known is None else known.meaning.security_counter, image.meaning.security_counter
        if has is not None and (wants is None or wants < has):
            raise RollbackError(f"the image has security counter {wants}, the running one {has}; the device would refuse it")

    def _begin(self, name: str, identity: Digest, image: KnownImage) -> Mapping[str, PartRecord]:
        """From here on the slot holds nothing complete; the bytes of the image are kept first."""
        self._images.keep_delivered()
        parts = self._images.keep(image)
        self._images.write(name, SlotRecord(writing=identity, parts=parts))
        self._images.forget_others()
        return parts

    def _give_up(self, name: str) -> None:
        self._images.write(name, replace(self._images.record(name), state=SlotState.BAD, activated=False))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator["Line"]:
        """The line, and the port given back afterwards: others may want to look at the device between two words."""
        try:
            yield self._line
        finally:
            await self._line.close()

    async def _standing(self, line: "Line") -> Standing:
        view = await line.view()
        return await asyncio.to_thread(Standing, self._images, view)

    async def _standing_or_cycle(self, line: "Line") -> Standing:
        try:
            return await self._standing(line)
        except SilentError:
            if not self._config.power_cycle or activated(self._images) is None:
                raise
        await self._cycle(line)
        return await self._standing(line)

    async def _comes_back(self, line: "Line", before: DeviceView | None) -> bool:
        """Whether it answers in time; where the restart shows (a trial begins or ends), it must show."""
        await asyncio.sleep(self._config.settle_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.start_timeout_s):
                while True:
                    if await line.answers():
                        if before is None or not (before.pending or before.on_trial):
                            return True
                        if await _seen(line) not in {before, None}:
                            return True
                    await asyncio.sleep(_PAUSE_S)
        return False

    async def _cycle(self, line: "Line") -> None:
        """The last resort for a mute device. Errors: `SilentError`, `HandlerError`."""
        if not self._config.power_cycle:
            raise SilentError(
                "the device did not come back from a restart, and no power_cycle is configured: cycle its power by hand"
            )
        _LOG.warning("the device is mute; its power is cycled by %s", self._config.power_cycle[0])
        ended = await run_program(self._config.power_cycle, timeout_s=self._config.power_cycle_timeout_s, environment={})
        if not ended.succeeded:
            raise HandlerError(f"driver.power_cycle {ended.describe()}")
        if not await self._comes_back(line, None):
            raise SilentError("the device stays mute after its power was cycled; look at it")


async def _seen(line: "Line") -> DeviceView | None:
    try:
        return await line.view()
    except SilentError:
        return None


def _require_arrival(view: DeviceView, image: KnownImage) -> None:
    if not view.holds(image.image_hash):
        found = "nothing" if view.other is None else view.other.image_hash.hex()
        raise ReadBackError(f"sent the image {image.image_hash.hex()}, and the device lists {found}; its flash may be failing")


def _rising(progress: Progress, total: int) -> Callable[[int], None]:
    """A device that restarted in the middle begins anew; what is told never falls."""
    best = 0

    def advance(offset: int) -> None:
        nonlocal best
        if offset > best:
            best = offset
            progress(best, total)

    return advance


def _quiet(_offset: int) -> None:
    """Nobody looks at it."""


def _make_line(config: McubootConfig) -> "Line":
    try:
        from node_agent.drivers.smp import line  # noqa: PLC0415 - an optional library, as permitted
    except ImportError as error:
        raise MissingExtraError("the driver mcuboot needs smpclient; install fieldrelay[devices] on this node") from error
    place = line.Datagrams(config.host, config.udp_port) if config.host else line.Serial(config.port, config.baudrate)
    return line.Line(place, line.Patience(config.answer_timeout_s, config.erase_timeout_s, config.tries), config.image)
