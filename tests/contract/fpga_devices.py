"""FPGAs for the contract suite of drivers: behind a flash chip with one update region or two, by flashrom, and under sysfs."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gateway.simulators.fpga import GOLDEN_VERSION, Fpga, create_fpga, make_bitstream
from gateway.simulators.fpga_tree import FpgaTree, make_tree, serve_tree
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers import fpga_flash, fpga_manager
from node_agent.drivers.driver import Driver, Surroundings
from node_agent.drivers.fpga_flash import FpgaFlashConfig
from node_agent.drivers.fpga_manager import FpgaManagerConfig
from node_agent.drivers.shelf.images import Shelf
from tests.builders.bundles import DEMO
from tests.contract.devices import Device, DeviceMaker
from tests.contract.shelf_devices import ImageReleases, ShelfContents, aside, carry_on
from tests.peers import need_tool
from update.durable import Disk

REGION_BYTES = 1 << 14
START_S = 30.0
_CALL = "import sys; from pathlib import Path; from gateway.simulators.fpga import Fpga; fpga = Fpga(Path(sys.argv[1])); "
_WAITS = {"watch_s": 0.0, "poll_interval_s": 0.002, "start_timeout_s": 20.0}


def bitstream(version: str) -> bytes:
    return make_bitstream(version, Random(version).randbytes(REGION_BYTES - 3000))


def fpga_releases(folder: Path) -> ImageReleases:
    return ImageReleases(folder, "fpga", bitstream)


def command(folder: Path, what: str) -> tuple[str, ...]:
    """A real program that does something to the simulated FPGA."""
    return (sys.executable, "-c", _CALL + what, str(folder))


def flash_config(fpga: Fpga, updates: tuple[str, ...] = ("update",), **keys: object) -> FpgaFlashConfig:
    """A configuration that waits no longer than a simulator needs."""
    places: dict[str, object] = {
        "layout": fpga.layout,
        "chip_file": fpga.chip,
        "regions": updates,
        "block_bytes": 4096,
        "golden_versions": (GOLDEN_VERSION,),
        "version_command": ("cat", str(fpga.register)),
        "trigger_command": command(fpga.folder, "fpga.load()"),
        "settle_s": 0.0,
    }
    if len(updates) > 1:
        places["select_command"] = ("sh", "-c", 'echo "$1" > "$0"', str(fpga.straps))
        places["selected_command"] = ("cat", str(fpga.straps))
    return FpgaFlashConfig(**{**_WAITS, **places, **keys})  # type: ignore[arg-type] # pydantic checks


@dataclass(slots=True)
class FpgaBoard:
    """The power switch of the FPGA, and the agent that looks at it afterwards."""

    fpga: Fpga
    driver: Driver = field(init=False)

    def decides(self) -> bytes:
        selected = self.fpga.selected()
        return selected.encode() + self.fpga.content(selected)

    def power_on(self) -> str:
        self.fpga.load()
        return aside(carry_on(self.driver))


def flash_device(*, updates: tuple[str, ...] = ("update",), flashrom: bool = False) -> DeviceMaker:
    """A maker of FPGAs that run version 1.0."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        fpga = create_fpga(folder / "fpga", factory=bitstream("1.0"), updates=updates, region_bytes=REGION_BYTES)
        keys: dict[str, object] = {}
        if flashrom:
            keys = {"chip_file": None, "programmer": dummy(fpga), "flashrom": need_tool("flashrom"), "protected": False}
        board = FpgaBoard(fpga)
        surroundings = Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader())
        board.driver = fpga_flash.create(flash_config(fpga, updates, **keys), surroundings)
        shelf = Shelf(Disk(), folder / "state" / "slots" / "bitstreams")
        return ShelfContents(board.driver, board, folder, {"a": (), "b": ()}, shelf, bitstream("1.0"))

    return make


def dummy(fpga: Fpga) -> str:
    """flashrom's programmer without hardware, on the chip of `fpga`."""
    return f"dummy:emulate=VARIABLE_SIZE,size={fpga.chip.stat().st_size},image={fpga.chip}"


def manager_config(tree: FpgaTree, **keys: object) -> FpgaManagerConfig:
    places: dict[str, object] = {
        "root": tree.folder / "sys",
        "firmware_folder": tree.firmware_folder,
        "boot_file": tree.boot_file,
        "boot_id": tree.boot_id,
        "version_command": ("cat", str(tree.register)),
    }
    return FpgaManagerConfig(**{**_WAITS, **places, **keys})  # type: ignore[arg-type] # pydantic checks


@dataclass(slots=True)
class ManagerBoard:
    """The machine's power switch."""

    tree: FpgaTree
    driver: Driver = field(init=False)

    def decides(self) -> bytes:
        return self.tree.boot_file.read_bytes()

    def power_on(self) -> str:
        self.tree.power_cycle()
        return aside(carry_on(self.driver))


def manager_device(stack: ExitStack) -> DeviceMaker:
    """A maker of FPGAs that Linux loads, which run version 1.0."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        tree = stack.enter_context(alive(make_tree(folder / "fpga", bitstream("1.0"))))
        board = ManagerBoard(tree)
        surroundings = Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader())
        board.driver = fpga_manager.create(manager_config(tree), surroundings)
        shelf = Shelf(Disk(), tree.firmware_folder, "fieldrelay-")
        return ShelfContents(board.driver, board, folder, {"a": (), "b": ()}, shelf, bitstream("1.0"))

    return make


@contextmanager
def alive(tree: FpgaTree) -> Iterator[FpgaTree]:
    """`tree`, looked after by a thread of its own."""
    loop, ready, done = asyncio.new_event_loop(), Future[None](), asyncio.Event()

    async def serve() -> None:
        async with serve_tree(tree):
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
