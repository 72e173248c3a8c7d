"""What is played under `umockdev-wrapper`, each in a process of its own: `python -m tests.media.scenes NAME`."""

import asyncio
import gc
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from media.config import Events, MediaConfig, MediaSection
from media.folder import FolderMedium
from media.intake import Intake, media_in
from media.policy import Device
from media.probing import Probed
from media.reading import Opened, Present
from media.records import Answer, Course, MediumState, Stage
from media.udev import Change, Udev, is_here_now, is_present
from media.watcher import Surroundings, Watch
from tests.media.testbed import Stick, Testbed
from update.durable import Disk

Changes = AsyncIterator[Change]


async def following(changes: Changes) -> Change:
    """The next change."""
    async with asyncio.timeout(60):
        return await anext(changes)


async def until(changes: Changes, name: str, *, there: bool) -> Change:
    """The next change of this kind."""
    while True:
        change = await following(changes)
        if change.name == name and (change.device is not None) is there:
            return change


async def comes_and_goes() -> None:
    """A stick that was there, and one that comes, goes, and comes again."""
    bed = Testbed()
    Stick(bed, disk="sdb", serial="0002", superfloppy=True).plug_in()
    stick = Stick(bed)
    udev = Udev()
    changes = udev.changes()
    left = await following(changes)
    assert (left.name, left.left_in) == ("sdb", True), left
    waiting = asyncio.create_task(until(changes, "sda1", there=True))
    await asyncio.sleep(0)
    stick.plug_in()
    device = (await waiting).device
    assert device is not None
    assert (device.bus, device.vendor, device.serial, device.port) == ("usb", "46f4:0001", "0001", "1-sda"), device
    assert (device.label, device.filesystem, device.filesystem_id) == ("UPDATE", "vfat", "AAAA-0001"), device
    assert (device.interfaces, device.size_bytes, device.removable, device.read_only) == (("08",), 8000 * 512, True, False), (
        device
    )
    assert udev.look("sda1") == device
    assert udev.look("sda") is None, "a disk with partitions is no medium"
    assert is_present(device)
    stick.pull()
    await until(changes, "sda1", there=False)
    assert not is_present(device)
    stick.plug_in()
    again = (await until(changes, "sda1", there=True)).device
    assert again is not None
    assert again != device, "another insertion"
    assert is_here_now(again)
    assert not is_here_now(device), "the earlier insertion is over, though something is there"
    await changes.aclose()  # type: ignore[attr-defined] # a generator


async def card_reader() -> None:
    """The reader stays, the card comes and goes: events of change, and no bytes."""
    bed = Testbed()
    card = Stick(bed, superfloppy=True)
    card.plug_in()
    disk = card.places[-1]
    udev = Udev()
    changes = udev.changes()
    device = (await following(changes)).device
    assert device is not None
    waiting = asyncio.create_task(until(changes, "sda", there=False))
    await asyncio.sleep(0)
    bed.set(disk, "size", "0")
    bed.tell(disk, "change")
    await waiting
    assert not is_here_now(device)
    bed.set(disk, "size", "8192")
    bed.tell(disk, "change")
    assert (await until(changes, "sda", there=True)).device == device
    await changes.aclose()  # type: ignore[attr-defined] # a generator


async def without_udevd() -> None:
    """Events of the kernel: the file system is probed by us; what hides a keyboard shows its classes."""
    bed = Testbed()
    stick = Stick(bed, told=False, classes=("08", "03"))
    probed: list[str] = []

    def look(node: str) -> Probed:
        probed.append(node)
        return Probed("exfat", "MINE", "1234-ABCD")

    stick.plug_in()
    (device,) = Udev(Events.KERNEL, look).here()
    assert (device.filesystem, device.label, device.interfaces) == ("exfat", "MINE", ("03", "08")), device
    assert probed == ["/dev/sda1"], probed
    (untold,) = Udev().here()
    assert untold.filesystem == "", "udevd has the last word where it runs"
    stick.pull()


async def chatter(cycles: int = 12) -> None:
    """Sticks are put in and pulled out in random order at random times: at the end nothing of it is left."""
    chance, bed = random.Random(cycles), Testbed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "content").mkdir()
        (folder / "content" / "a.swu").write_bytes(b"070702" + bytes(5000))
        sticks = [Stick(bed, disk=f"sd{letter}", serial=letter, superfloppy=letter == "c") for letter in "abc"]
        udev, opened, told = Udev(), list[Opened](), list[MediumState]()

        async def open_it(_device: Device, present: Present) -> Opened:
            descriptor = os.open(folder / "content", os.O_RDONLY | os.O_DIRECTORY)
            opened.append(Opened(FolderMedium(descriptor, present)))
            return opened[-1]

        config = MediaConfig(format_version=1, media=MediaSection(intake=folder / "intake", settle_s=0.002))
        around = Surroundings(udev, open_it, Disk(), time.time, time.monotonic, told.append)
        gc.collect()
        before = (len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())))
        stop = asyncio.Event()
        running = asyncio.create_task(Watch(config, around).run(stop))
        for _ in range(cycles):
            stick = chance.choice(sticks)
            (stick.pull if stick.places else stick.plug_in)()
            await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.05)))
        for stick in sticks:
            stick.pull()
        sticks[0].plug_in()
        intake = Intake(Disk(), folder / "intake", "aaaa-a-a")
        await eventually(lambda: answered(intake))
        sticks[0].pull()
        await eventually(lambda: all_gone(folder))
        stop.set()
        await running
        gc.collect()
        assert opened
        assert not any(each.medium._open for each in opened if isinstance(each.medium, FolderMedium))
        after = (len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())))
        assert after == before, (before, after)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not holds():  # noqa: ASYNC110 - threads and the testbed bring it about
            await asyncio.sleep(0.01)


def all_gone(folder: Path) -> bool:
    states = [intake.state() for intake in media_in(Disk(), folder / "intake")]
    return all(state is not None and state.stage is Stage.GONE for state in states)


def answered(intake: Intake) -> bool:
    """Say to whatever is offered that all is here; whether it may be pulled out."""
    offer, state = intake.offer(), intake.state()
    if offer is not None:
        said = Answer(medium=offer.medium, visit=offer.visit, course=Course.UPDATING, since=1, taken_bytes=1, wanted_bytes=1)
        intake.write_answer(said)
    return state is not None and state.stage is Stage.SAFE


async def chatter_long() -> None:
    """The same a hundred times."""
    await chatter(100)


SCENES: dict[str, Callable[[], Awaitable[None]]] = {
    scene.__name__: scene for scene in (comes_and_goes, card_reader, without_udevd, chatter, chatter_long)
}

if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]]())  # type: ignore[arg-type] # each is a coroutine
