"""Every medium from plugging in to pulling out: `media watch`.

Each medium is a task of its own, so several are read at once; a name of the kernel that comes back waits for what was there
before. The state that people see is true at any time: what is gone says so, also what went while nobody watched. A medium that is
pulled out ends its visit by itself; nothing of it is cancelled, so no thread reads what has been closed. Events that repeat what
is known change nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from media.config import MediaConfig
from media.exporter import Exporter, WritableFolder
from media.folders import BUS
from media.importer import Importer, Visit
from media.intake import Intake, media_in, medium_id
from media.policy import Device, Ruling, Taken, rule
from media.reading import Opened, Present
from media.records import MediumState, Stage
from media.udev import Change
from update.durable import Disk
from update.errors import FieldrelayError, MediumError, MediumGoneError, MediumRefusedError, MediumUnreadableError, StoreError

_LOG = logging.getLogger(__name__)

MAX_MEDIA: Final = 32
_BUSY = frozenset({Stage.FOUND, Stage.CHECKING, Stage.COPYING})
_SHOWN_ONLY = "this medium is not on the list of media that are taken here ([[allow]])"


class Source(Protocol):
    """What comes and goes, and whether one insertion is still there (which may take a moment to say)."""

    def changes(self) -> AsyncIterator[Change]:
        """First what is there, then what happens."""
        ...

    def is_present(self, device: Device) -> bool:
        """Asked from threads."""
        ...


Open = Callable[[Device, Present], Awaitable[Opened]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a watch needs of the world. `told` is called with every new state of any medium."""

    source: Source
    open: Open
    disk: Disk
    now: Callable[[], float]
    clock: Callable[[], float]
    told: Callable[[MediumState], None]


@dataclass(slots=True, eq=False)
class _Stay:
    """One insertion. `gone` is set when it is pulled out, or when nobody watches any more."""

    device: Device
    left_in: bool
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    intake: Intake | None = None


class Watch:
    """Watches until it is told to stop."""

    def __init__(self, config: MediaConfig, around: Surroundings) -> None:
        self._config = config
        self._around = around
        self._root: Path = config.media.intake
        self._here: dict[str, _Stay] = {}
        self._stays: set[_Stay] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`. Errors: `ConfigurationError` if events cannot be heard, `StoreError` for the folder of intake."""
        await asyncio.to_thread(self._around.disk.make_folder, self._root, mode=0o770)
        await asyncio.to_thread(self._tell_what_went)
        following = asyncio.create_task(self._follow())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            for task in (following, stopping):
                task.cancel()
            for stay in self._stays:
                stay.gone.set()
            ending = [stay.task for stay in self._stays if stay.task is not None]
            await asyncio.gather(following, stopping, *ending, return_exceptions=True)

    def _tell_what_went(self) -> None:
        """What was here when the last process ended is gone, until it is seen again."""
        for intake in media_in(self._around.disk, self._root):
            state = intake.state()
            if state is not None and state.stage is not Stage.GONE:
                self._show(intake, state, Stage.GONE, state.code, state.message)

    async def _follow(self) -> None:
        async for change in self._around.source.changes():
            await self._take(change)

    async def _take(self, change: Change) -> None:
        known = self._here.get(change.name)
        if known is not None and known.device == change.device:
            return
        if known is not None:
            del self._here[change.name]
            known.gone.set()
        if change.device is None:
            return
        await self._make_room()
        if len(self._here) >= MAX_MEDIA:
            _LOG.warning("%s is not looked at: %s media are here already", change.name, MAX_MEDIA)
            return
        before = [each.task for each in self._stays if each.device.name == change.name and each.task is not None]
        stay = self._here[change.name] = _Stay(change.device, change.left_in)
        self._stays.add(stay)
        stay.task = asyncio.create_task(self._stay(stay, before))
        stay.task.add_done_callback(lambda _task: self._stays.discard(stay))

    async def _make_room(self) -> None:
        """Wait for visits that are ending: a contact that chatters must not pile them up."""
        while len(self._stays) >= 2 * MAX_MEDIA:
            ending = [stay.task for stay in self._stays if stay.gone.is_set() and stay.task is not None]
            if not ending:
                return
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)

    async def _stay(self, stay: _Stay, before: "Sequence[asyncio.Task[None]]") -> None:
        try:
            if before:
                await asyncio.wait(before)
            await _within(self._config.media.settle_s, stay.gone)
            if stay.gone.is_set():
                return
            await self._judge(stay)
            await stay.gone.wait()
            await asyncio.to_thread(self._leave, stay)
        except StoreError as error:
            _LOG.error("%s: %s (%s)", stay.device.node, error, error.code)
            await stay.gone.wait()

    async def _judge(self, stay: _Stay) -> None:
        """What the policy says of it, and what follows."""
        device = stay.device
        try:
            ruling = self._ruling(device)
        except MediumRefusedError as error:
            _LOG.warning("%s (%s)", error, error.code)
            await asyncio.to_thread(self._begin, stay, Stage.IGNORED, error.code, str(error))
            return
        match ruling.taken:
            case Taken.IGNORE:
                _LOG.debug("%s is ignored", device.node)
            case Taken.SHOW:
                await asyncio.to_thread(self._begin, stay, Stage.IGNORED, MediumRefusedError.code, _SHOWN_ONLY)
            case Taken.IMPORT:
                await self._visit(stay)

    def _ruling(self, device: Device) -> Ruling:
        if device.bus == BUS:
            return Ruling(Taken.IMPORT)
        return rule(device, self._config.policy, self._config.allow)

    async def _visit(self, stay: _Stay) -> None:
        def present() -> bool:
            return not stay.gone.is_set() and self._around.source.is_present(stay.device)

        _LOG.info("%s is read: %s", stay.device.node, _label(stay.device))
        await asyncio.to_thread(self._begin, stay, Stage.FOUND, "", "")
        try:
            opened = await self._around.open(stay.device, present)
        except MediumError as error:
            gone = not await asyncio.to_thread(present)
            _LOG.warning("%s (%s)", error, error.code)
            stage = Stage.GONE if gone else Stage.FAILED
            await asyncio.to_thread(self._begin, stay, stage, error.code, str(error))
            return
        try:
            visit = self._visit_of(stay, opened)
            state = await Importer(visit, self._intake(stay), self._around.told).run()
            _LOG.info("%s: %s %s", stay.device.node, state.stage, state.code)
        finally:
            opened.close()

    def _visit_of(self, stay: _Stay, opened: Opened) -> Visit:
        async def finish() -> str:
            return await self._export(opened)

        return Visit(
            opened.medium,
            _label(stay.device),
            writable=opened.writable,
            now=self._around.now,
            clock=self._around.clock,
            left_in=stay.left_in,
            present=lambda: not stay.gone.is_set(),
            finish=finish,
        )

    async def _export(self, opened: Opened) -> str:
        """Write what waits for a medium onto this one; what people should know about it."""
        exporter = Exporter(self._root)
        if opened.handed is None or not opened.writable or not await asyncio.to_thread(exporter.waits):
            return ""
        try:
            async with opened.handed.writing() as reports:
                written = await asyncio.to_thread(exporter.export, _Reports(WritableFolder(reports, self._around.disk)))
        except FieldrelayError as error:
            _LOG.warning("%s (%s)", error, error.code)
            return str(error)
        return f"{len(written)} reports were written onto it"

    def _intake(self, stay: _Stay) -> Intake:
        """Where this medium is known; two that say the same of themselves are kept apart while both are here."""
        if stay.intake is None:
            device = stay.device
            name = medium_id(device.filesystem_id or device.name, device.serial)
            others = (each for each in self._stays if each.task is not None and not each.task.done())
            taken = {each.intake.medium for each in others if each.intake is not None}
            name = medium_id(device.name, name) if name in taken else name
            stay.intake = Intake(self._around.disk, self._root, name)
        return stay.intake

    def _begin(self, stay: _Stay, stage: Stage, code: str, message: str) -> None:
        intake = self._intake(stay)
        if stage is not Stage.GONE:
            intake.begin()
        state = MediumState(medium=intake.medium, label=_label(stay.device), stage=stage, since=0)
        self._show(intake, state, stage, code, message)

    def _leave(self, stay: _Stay) -> None:
        """It was pulled out, or nobody watches it any more. What went wrong remains to be read."""
        state = None if stay.intake is None else stay.intake.state()
        if stay.intake is None or state is None or state.stage is Stage.GONE:
            return
        code, message = state.code, state.message
        if state.stage in _BUSY or (state.stage is Stage.FAILED and code == MediumUnreadableError.code):
            code, message = MediumGoneError.code, "the medium was pulled out before all was copied; plug it in again"
        self._show(stay.intake, state, Stage.GONE, code, message)

    def _show(self, intake: Intake, state: MediumState, stage: Stage, code: str, message: str) -> None:
        shown = replace(state, stage=stage, since=int(self._around.now()), code=code[:300], message=message[:1000])
        intake.write_state(shown)
        self._around.told(shown)


@dataclass(frozen=True, slots=True)
class _Reports:
    """The exporter's medium where only the folder of reports is open: its first component is that folder."""

    inside: WritableFolder

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        self.inside.write(folder[1:], name, data)

    def read_back(self, folder: tuple[str, ...], name: str, max_bytes: int) -> bytes:
        return self.inside.read_back(folder[1:], name, max_bytes)


def _label(device: Device) -> str:
    """What people know it by."""
    text = device.label or device.serial or device.name
    return "".join(each if each.isprintable() else "?" for each in text)[:60]


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
