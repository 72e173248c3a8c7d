"""What is played under `umockdev-wrapper`, each in a process of its own: `python -m tests.media.scenes NAME`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from media.probing import Probed
from media.config import Events
from media.udev import Change, Udev, is_here_now, is_present
from tests.media.testbed import Stick, Testbed

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


SCENES: dict[str, Callable[[], Awaitable[None]]] = {
    scene.__name__: scene for scene in (comes_and_goes, card_reader, without_udevd)
}

if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]]())  # type: ignore[arg-type] # each is a coroutine
