"""An FPGA that Linux loads, as the tree of sysfs that the kernel shows of it (`node_agent.drivers.fpga_manager`).

The folder is the machine: `sys/class/fpga_manager/fpga0/` with `name`, `state`, `flags` and `firmware`, `firmware/` where the
kernel looks for bitstreams, `boot.bin` that a start loads, `boot_id`, and `version`, the register. Files do not answer like
attributes: somebody has to look what was written into `firmware` (`serve_tree`), and does so a moment after the write returned,
where the kernel is done with it. Until then the name stands there.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Final
from uuid import uuid4

from gateway.simulators.fpga import read_faults, read_version
from update.errors import StateError

_LOOK_S: Final = 0.005
NAME: Final = "Fieldrelay simulated FPGA"


class FpgaTree:
    """The machine in `folder`; safe to call from several threads. It misbehaves like the FPGA with a chip (`FpgaFaults`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attributes = folder / "sys" / "class" / "fpga_manager" / "fpga0"
        self.firmware_folder = folder / "firmware"
        self.boot_file = folder / "boot.bin"
        self.boot_id = folder / "boot_id"
        self.register = folder / "version"
        self._lock = RLock()

    def power_cycle(self) -> str:
        """Everything is forgotten, and `boot.bin` is loaded; the version that runs then."""
        with self._lock:
            self.boot_id.write_text(f"{uuid4()}\n")
            (self.attributes / "firmware").write_text("")
            self._set("state", "power up")
            self.register.unlink(missing_ok=True)
            if self.boot_file.exists():
                self._load(self.boot_file.read_bytes())
            return self.version()

    def react(self) -> bool:
        """Do what was written into `firmware`, if anything was."""
        with self._lock:
            wanted = (self.attributes / "firmware").read_text()
            if not wanted.endswith("\n"):
                return False
            self.register.unlink(missing_ok=True)
            path = self.firmware_folder / Path(wanted.strip()).name
            if path.is_file():
                self._load(path.read_bytes())
            else:
                self._set("state", "firmware request error")
            (self.attributes / "firmware").write_text("")
            return True

    def version(self) -> str:
        """What the register says; empty where the FPGA is mute, or not loaded."""
        return self.register.read_text().strip() if self.register.exists() else ""

    def _load(self, data: bytes) -> None:
        version, faults = read_version(data), read_faults(self.folder)
        if version is None or version in faults.refused:
            self._set("state", "write error" if version is None else "write complete error")
            return
        if version not in faults.mute:
            self.register.write_text(f"{version}\n")
        self._set("state", "operating")

    def _set(self, attribute: str, text: str) -> None:
        (self.attributes / attribute).write_text(f"{text}\n")


def make_tree(folder: Path, factory: bytes) -> FpgaTree:
    """A machine that loads `factory` at its start, and has just started. `StateError` where there is one."""
    tree = FpgaTree(folder)
    if tree.attributes.exists():
        raise StateError(f"{folder} holds a simulated FPGA already; remove it, or name another folder")
    tree.attributes.mkdir(parents=True)
    tree.firmware_folder.mkdir()
    for attribute, text in (("name", NAME), ("flags", "0"), ("state", "unknown")):
        (tree.attributes / attribute).write_text(f"{text}\n")
    tree.boot_file.write_bytes(factory)
    tree.power_cycle()
    return tree


@asynccontextmanager
async def serve_tree(tree: FpgaTree) -> AsyncIterator[None]:
    """Keep the tree alive."""
    task = asyncio.create_task(_serve(tree))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _serve(tree: FpgaTree) -> None:
    while True:
        tree.react()
        await asyncio.sleep(_LOOK_S)
