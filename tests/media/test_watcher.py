"""Media from plugging in to pulling out, with a folder in the place of each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from media.config import AllowSection, MediaConfig, MediaSection
from media.folder import FolderMedium
from media.folders import Folders
from media.intake import Intake
from media.policy import Device
from media.reading import Opened, Present, Readers
from media.records import Answer, Course, MediumState, Offer, Stage
from media.udev import Change
from media.watcher import Source, Surroundings, Watch
from update.durable import Disk
from update.errors import MediumGoneError, MediumUnreadableError

_T = TypeVar("_T")
SWU = b"070702" + bytes(5000)


async def eventually(look: Callable[[], _T | None]) -> _T:
    async with asyncio.timeout(60):
        while (found := look()) is None:  # noqa: ASYNC110 - the other side is meant to be another process
            await asyncio.sleep(0.005)
    return found


@dataclass
class Port:
    """Where sticks are plugged in: a source of events."""

    events: "asyncio.Queue[Change]" = field(default_factory=asyncio.Queue)
    here: set[Device] = field(default_factory=set)

    async def changes(self) -> AsyncIterator[Change]:
        while True:
            yield await self.events.get()

    def is_present(self, device: Device) -> bool:
        return device in self.here

    def plug_in(self, device: Device, *, left_in: bool = False) -> None:
        self.here.add(device)
        self.events.put_nowait(Change(device.name, device, left_in))

    def pull(self, device: Device) -> None:
        self.here.discard(device)
        self.events.put_nowait(Change(device.name, None))


@dataclass
class Bench:
    """A port, sticks, and what is known of them."""

    folder: Path
    port: Port = field(default_factory=Port)
    opened: list[Opened] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    let_go: set[str] = field(default_factory=set)
    told: list[MediumState] = field(default_factory=list)
    allow: tuple[AllowSection, ...] = (AllowSection(),)

    def stick(self, number: int, name: str = "sda1", **files: bytes) -> Device:
        device = Device(
            name, f"/dev/{name}", bus="usb", serial=str(number), label=f"STICK{number}", filesystem="vfat",
            filesystem_id=f"id-{number}", interfaces=("08",), size_bytes=1 << 20, sequence=str(number),
        )  # fmt: skip
        (self.folder / device.serial).mkdir(exist_ok=True)
        for file, content in files.items():
            (self.folder / device.serial / file).write_bytes(content)
        return device

    async def open(self, device: Device, present: Present) -> Opened:
        if device.serial in self.broken:
            raise MediumUnreadableError("cannot mount it")
        if device.serial in self.let_go:
            raise MediumGoneError("the mounter has let the medium go")
        self.opened.append(Opened(FolderMedium.at(self.folder / device.serial)))
        return self.opened[-1]

    def intake(self, device: Device) -> Intake:
        return Intake(Disk(), self.folder / "intake", f"{device.filesystem_id}-{device.serial}")

    async def offer(self, device: Device, *, after: str = "") -> Offer:
        def look() -> Offer | None:
            found = self.intake(device).offer()
            return None if found is None or found.visit == after else found

        return await eventually(look)

    async def state(self, device: Device, stage: Stage) -> MediumState:
        def look() -> MediumState | None:
            state = self.intake(device).state()
            return state if state is not None and state.stage is stage else None

        return await eventually(look)

    def answer(self, offer: Offer) -> None:
        said = Answer(medium=offer.medium, visit=offer.visit, course=Course.UPDATING, since=1, taken_bytes=5, wanted_bytes=5)
        Intake(Disk(), self.folder / "intake", offer.medium).write_answer(said)

    def answered(self, device: Device) -> bool | None:
        """Whether it is safe by an answer to its offer, whichever visit that is of."""
        state, offer = self.intake(device).state(), self.intake(device).offer()
        if offer is not None:
            self.answer(offer)
        return True if state is not None and state.stage is Stage.SAFE else None

    @asynccontextmanager
    async def watched(self, source: Source | None = None) -> AsyncIterator[None]:
        media = MediaSection(intake=self.folder / "intake", settle_s=0.001)
        config = MediaConfig(format_version=1, media=media, allow=self.allow)
        opens = self.open if source is None else Readers(media).open
        around = Surroundings(source or self.port, opens, Disk(), time.time, time.monotonic, self.told.append)
        stop = asyncio.Event()
        running = asyncio.create_task(Watch(config, around).run(stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(60):
                await running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def closed(opened: Opened) -> bool:
    assert isinstance(opened.medium, FolderMedium)
    return not opened.medium._open


async def test_a_stick_is_read_until_it_may_be_pulled_and_then_it_is_gone(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    async with bench.watched():
        bench.port.plug_in(stick)
        bench.answer(await bench.offer(stick))
        await bench.state(stick, Stage.SAFE)
        await eventually(lambda: closed(bench.opened[0]) or None)
        bench.port.pull(stick)
        gone = await bench.state(stick, Stage.GONE)
    assert (gone.code, gone.label) == ("", "STICK1")
    stages = [state.stage for state in bench.told]
    assert stages == [Stage.FOUND, Stage.FOUND, Stage.CHECKING, Stage.SAFE, Stage.GONE]


async def test_a_stick_that_is_torn_out_says_so_and_is_read_anew_when_it_is_back(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    async with bench.watched():
        bench.port.plug_in(stick)
        first = await bench.offer(stick)
        bench.port.pull(stick)
        assert (await bench.state(stick, Stage.GONE)).code == "medium.gone"
        again = replace(stick, sequence="2")
        bench.port.plug_in(again)
        second = await bench.offer(again, after=first.visit)
        bench.answer(second)
        await bench.state(again, Stage.SAFE)
    assert all(closed(each) for each in bench.opened)
    assert len(bench.opened) == 2


async def test_an_event_that_repeats_what_is_known_changes_nothing(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    async with bench.watched():
        bench.port.plug_in(stick)
        offer = await bench.offer(stick)
        bench.port.plug_in(stick)
        bench.answer(offer)
        await bench.state(stick, Stage.SAFE)
        bench.port.plug_in(stick)
        bench.port.pull(stick)
        await bench.state(stick, Stage.GONE)
    assert len(bench.opened) == 1


async def test_two_sticks_are_read_at_once(bench: Bench) -> None:
    sticks = [bench.stick(1, "sda1", a=SWU), bench.stick(2, "sdb1", a=SWU)]
    async with bench.watched():
        for stick in sticks:
            bench.port.plug_in(stick)
        offers = [await bench.offer(stick) for stick in sticks]
        for offer in offers:
            bench.answer(offer)
        for stick in sticks:
            await bench.state(stick, Stage.SAFE)


async def test_two_sticks_that_call_themselves_alike_are_kept_apart(bench: Bench) -> None:
    one = bench.stick(1, "sda1", a=SWU)
    other = replace(one, name="sdb1", node="/dev/sdb1")
    async with bench.watched():
        bench.port.plug_in(one)
        await bench.offer(one)
        bench.port.plug_in(other)
        twin = Intake(Disk(), bench.folder / "intake", f"sdb1-{one.filesystem_id}-{one.serial}")
        await eventually(twin.offer)
        assert (await bench.offer(one)).medium == f"{one.filesystem_id}-{one.serial}"


async def test_what_was_there_already_is_offered_as_left_in(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    bench.port.plug_in(stick, left_in=True)
    async with bench.watched():
        assert (await bench.offer(stick)).left_in


@pytest.mark.parametrize(
    ("device", "code"),
    [({"filesystem": "ntfs"}, "medium.not-allowed"), ({"interfaces": ("03", "08")}, "medium.not-allowed")],
)
async def test_a_medium_that_is_refused_is_shown_with_the_reason_and_never_opened(
    bench: Bench, device: dict[str, str], code: str
) -> None:
    stick = replace(bench.stick(1, a=SWU), **device)  # type: ignore[arg-type] # fields of each case
    async with bench.watched():
        bench.port.plug_in(stick)
        assert (await bench.state(stick, Stage.IGNORED)).code == code
    assert bench.opened == []


async def test_an_unknown_stick_is_shown_and_one_to_be_ignored_leaves_no_trace(bench: Bench) -> None:
    bench.allow = (AllowSection(serial="9"),)
    stick, own = bench.stick(1, a=SWU), replace(bench.stick(2, "vda1"), bus="virtio")
    async with bench.watched():
        bench.port.plug_in(own)
        bench.port.plug_in(stick)
        await bench.state(stick, Stage.IGNORED)
    assert bench.opened == []
    assert bench.intake(own).state() is None


async def test_a_stick_that_cannot_be_opened_has_failed_and_the_next_is_read(bench: Bench) -> None:
    bad, good = bench.stick(1, a=SWU), bench.stick(2, "sdb1", a=SWU)
    bench.broken.add("1")
    async with bench.watched():
        bench.port.plug_in(bad)
        assert (await bench.state(bad, Stage.FAILED)).code == "medium.unreadable"
        bench.port.plug_in(good)
        await bench.offer(good)


async def test_a_stick_that_is_still_there_is_never_said_to_be_gone(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    bench.let_go.add("1")
    async with bench.watched():
        bench.port.plug_in(stick)
        assert (await bench.state(stick, Stage.FAILED)).code == "medium.gone"
        bench.port.pull(stick)
        await bench.state(stick, Stage.GONE)


async def test_whoever_watches_no_more_leaves_no_stick_that_seems_to_be_read(bench: Bench) -> None:
    stick = bench.stick(1, a=SWU)
    async with bench.watched():
        bench.port.plug_in(stick)
        await bench.offer(stick)
    state = bench.intake(stick).state()
    assert state is not None
    assert state.stage is Stage.GONE


async def test_what_went_while_nobody_watched_is_gone(bench: Bench) -> None:
    stick = bench.stick(1)
    bench.intake(stick).begin()
    bench.intake(stick).write_state(MediumState(medium="id-1-1", label="x", stage=Stage.COPYING, since=1))
    async with bench.watched():
        await bench.state(stick, Stage.GONE)


async def test_contacts_that_chatter_leave_no_tasks_and_no_open_folders(bench: Bench) -> None:
    sticks = [bench.stick(number, f"sd{number}1", a=SWU) for number in range(3)]
    before = len(asyncio.all_tasks())
    async with bench.watched():
        for round_ in range(40):
            stick = replace(sticks[round_ % 3], sequence=f"{round_}")
            bench.port.plug_in(stick)
            if round_ % 2:
                await asyncio.sleep(0.002)
            bench.port.pull(stick)
        last = replace(sticks[0], sequence="last")
        bench.port.plug_in(last)
        await eventually(lambda: bench.answered(last))
    assert len(asyncio.all_tasks()) == before
    assert all(closed(each) for each in bench.opened)


async def test_a_folder_stands_for_a_stick(bench: Bench) -> None:
    slot = bench.folder / "slot"
    intake = Intake(Disk(), bench.folder / "intake", "slot")
    async with bench.watched(Folders(slot)):
        bench.stick(1, a=SWU)
        (bench.folder / "1").rename(slot)
        offer = await eventually(intake.offer)
        bench.answer(offer)

        def stage() -> Stage:
            state = intake.state()
            assert state is not None
            return state.stage

        await eventually(lambda: stage() is Stage.SAFE or None)
        slot.rename(bench.folder / "pulled")
        await eventually(lambda: stage() is Stage.GONE or None)
