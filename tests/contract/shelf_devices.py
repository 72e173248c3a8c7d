"""What devices that run what they are handed have in common in the contract suite: releases, contents, and a start.

A start of such a machine brings what the device has by itself. Then it is the agent's to carry on: a trial that waits for its
restart, or a return, is due, and the agent restarts the device for it (`node_agent.states.RESUME`).
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.drivers.driver import Driver, SlotState
from node_agent.drivers.shelf.images import PART, Shelf
from node_agent.drivers.slots.records import SlotRecords
from tests.builders.bundles import describe, image, signed, verified
from tests.contract.devices import Device, FileChunks, Release

Bootenv = Sequence[object]


@dataclass(slots=True)
class ImageReleases:
    """Bundles of one folder by version, each with one image for `device`."""

    folder: Path
    device: str
    make: Callable[[str], bytes]
    made: dict[int, Release] = field(default_factory=dict)

    def __call__(self, version: int, /, bootenv: Bootenv = ()) -> Release:
        assert not bootenv, "such a device has none"
        if version not in self.made:
            self.made[version] = self.release(f"{version}.0", self.make(f"{version}.0"))
        return self.made[version]

    def release(self, version: str, content: bytes) -> Release:
        description = describe(version=version, images=[image("image.bin", content, device=self.device, type="raw")])
        file = signed(self.folder, description, {"image.bin": content}, name=f"{self.device}-{version}.swu")
        return Release(verified(file), FileChunks({}), content, b"")


@dataclass(frozen=True, slots=True)
class ShelfContents(Device):
    """What a slot holds is the image that its record names; `delivered` is the first one's, before anything was written."""

    shelf: Shelf
    delivered: bytes

    def content(self, slot: str) -> str:
        part = SlotRecords(self.shelf.disk, self.folder / "state" / "slots").read(slot).parts.get(PART)
        if part is None:
            return self.delivered.hex() if slot == "a" else ""
        path = self.shelf.path(part.digest)
        return path.read_bytes().hex() if path.exists() else ""


async def carry_on(driver: Driver) -> str:
    """What an agent does after a start; the slot that runs then."""
    slots = await driver.slots()
    waits = any(slot.trial and not slot.booted for slot in slots)
    if waits or any(slot.booted and slot.state is SlotState.BAD for slot in slots):
        await driver.restart()
        slots = await driver.slots()
    return next(slot.name for slot in slots if slot.booted)


def aside(work: Coroutine[object, object, str]) -> str:
    """Do `work` in an event loop of its own: the suite's power switch does not wait for one."""
    done: Future[str] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - a killed process is one, and it is raised where it is waited for
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done.result()
