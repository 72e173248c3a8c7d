"""Secondary processors for the contract suite of drivers: as exact as the kernel in memory, or in a folder as in a dry run."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.simulators.cpu import Cpu, make_firmware
from gateway.simulators.cpu_tree import BOOT_FIRMWARE, CpuTree, make_tree, serve_tree
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Driver, Surroundings
from node_agent.drivers.remoteproc import RemoteprocConfig, SysfsAttributes, make
from node_agent.drivers.shelf.images import Shelf
from tests.builders.bundles import DEMO
from tests.contract.devices import Device, DeviceMaker
from tests.contract.shelf_devices import ImageReleases, ShelfContents, aside, carry_on
from update.durable import Disk

START_S = 30.0
PREFIX = "fieldrelay-"


def cpu_releases(folder: Path) -> ImageReleases:
    return ImageReleases(folder, "cpu", make_firmware)


def quick(folder: Path, **keys: object) -> RemoteprocConfig:
    """A configuration that waits no longer than a simulator needs."""
    waits = {"poll_interval_s": 0.002, "watch_s": 0.01, "start_timeout_s": 20.0}
    places = {"root": folder / "sys", "firmware_folder": folder / "firmware", "version_file": folder / "version"}
    return RemoteprocConfig(boot_firmware=BOOT_FIRMWARE, **{**waits, **places, **keys})  # type: ignore[arg-type] # pydantic checks


@dataclass(slots=True)
class KernelAttributes:
    """The attributes as the kernel has them: what it refuses is refused at once. Every look is a moment."""

    cpu: Cpu

    def read(self, attribute: str) -> str:
        self.cpu.tick()
        return self.cpu.read(attribute)

    def write(self, attribute: str, text: str) -> None:
        self.cpu.write(attribute, text)


@dataclass(slots=True)
class CpuBoard:
    """The machine's power switch."""

    tree: CpuTree
    driver: Driver = field(init=False)

    def decides(self) -> bytes:
        cpu = self.tree.cpu
        return cpu.firmware.encode() + (cpu.firmware_folder / cpu.boot_firmware).read_bytes()

    def power_on(self) -> str:
        self.tree.power_cycle()
        return aside(carry_on(self.driver))


def cpu_device(stack: ExitStack, *, tree: bool = False) -> DeviceMaker:
    """A maker of processors that run version 1.0 and have nothing beside it."""

    def build(folder: Path, disk: Disk | None = None) -> Device:
        delivered, disk = make_firmware("1.0"), disk or Disk()
        made = make_tree(folder, delivered)
        if tree:
            config = quick(folder)
            attributes: SysfsAttributes | KernelAttributes = SysfsAttributes(
                config.root / "class" / "remoteproc" / config.processor
            )
            made = stack.enter_context(served(made))
        else:
            config, attributes = quick(folder, version_file=None), KernelAttributes(made.cpu)
        board = CpuBoard(made)
        board.driver = make(config, Surroundings(disk, folder / "state", DEMO, NoBootloader()), attributes)
        shelf = Shelf(Disk(), config.firmware_folder, PREFIX, ".elf")
        return ShelfContents(board.driver, board, folder, {"a": (), "b": ()}, shelf, delivered)

    return build


@contextmanager
def served(tree: CpuTree) -> Iterator[CpuTree]:
    """`tree` kept alive by a thread of its own."""
    loop, ready, done = asyncio.new_event_loop(), Future[None](), asyncio.Event()

    async def serve() -> None:
        async with serve_tree(tree, 0.001):
            ready.set_result(None)
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        ready.result(START_S)
        yield tree
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(START_S)
        loop.close()
