"""Keeps a simulated processor alive in a folder, as the kernel keeps one in sysfs, for tests, the demo and dry runs.

    FOLDER/sys/class/remoteproc/remoteproc0/{name,firmware,state,recovery,coredump}
    FOLDER/firmware/   the firmware folder
    FOLDER/version     what the firmware that runs says of itself, empty while it gives no sign of life
    FOLDER/behaviours  a line `VERSION BEHAVIOUR` for every version that is to behave otherwise than its file says
    FOLDER/power       somebody who makes this file switches the machine off and on; then it is gone
    FOLDER/refused     a line for every write that the kernel would have refused, with the name of its error

What is different from sysfs, because a plain file takes every write:

1. A write is carried out within `pause_s`, in the order recovery, firmware, state. Until then the file reads as it was written:
   a reader waits while `state` says `start` or `stop`. A file that is empty is just being written, and is left alone.
2. A write that is refused is taken back and noted in `refused`. While the processor runs, `firmware` is read-only, so that those
   who are not root are refused at once.
3. One writer at a time. `power_cycle` is the machine's power.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Final

from gateway.simulators.cpu import Behaviour, Cpu, State, make_firmware

PROCESSOR: Final = "remoteproc0"
BOOT_FIRMWARE: Final = "cpu-boot.elf"
_WRITABLE: Final = ("recovery", "firmware", "state")
_ATTRIBUTES: Final = ("name", *_WRITABLE, "coredump")
_MAX_BYTES: Final = 4096


@dataclass(slots=True)
class CpuTree:
    """One processor in `folder`; safe to call from several threads."""

    folder: Path
    cpu: Cpu
    _shown: dict[str, str] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)

    @property
    def root(self) -> Path:
        """What the driver has as `root`."""
        return self.folder / "sys"

    def step(self) -> None:
        """Carry out what was written, let a moment pass, and show what came of it."""
        with self._lock:
            self._obey()
            written = [(attribute, self._written(attribute)) for attribute in reversed(_WRITABLE)]
            for attribute, text in reversed(written):  # what was written before a command is read after it
                self._take(attribute, text)
            self.cpu.tick()
            self._show()

    def power_cycle(self) -> None:
        """The machine starts anew; what was written and not carried out is lost."""
        with self._lock:
            self.cpu.power_cycle()
            self._shown.clear()
            self._show()

    def _obey(self) -> None:
        """What the person says who plays with the device."""
        try:
            lines = (self.folder / "behaviours").read_text().splitlines()
        except OSError:
            lines = []
        known = set(Behaviour)
        named = [line.split() for line in lines]
        self.cpu.behaviours = {each[0]: Behaviour(each[1]) for each in named if len(each) == 2 and each[1] in known}
        if (self.folder / "power").exists():
            (self.folder / "power").unlink()
            self.power_cycle()

    def _path(self, attribute: str) -> Path:
        return self.root / "class" / "remoteproc" / PROCESSOR / attribute

    def _written(self, attribute: str) -> str:
        try:
            with self._path(attribute).open("rb", buffering=0) as file:  # one read: two could see two writes
                return file.read(_MAX_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _take(self, attribute: str, written: str) -> None:
        if written in {"", self._shown.get(attribute)}:
            return
        try:
            self.cpu.write(attribute, written)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "EIO")
            with (self.folder / "refused").open("a") as log:
                log.write(f"{attribute} {written[:100]} {name}\n")
        self._shown.pop(attribute, None)

    def _show(self) -> None:
        self._path("firmware").chmod(0o644)
        for attribute in _ATTRIBUTES:
            if self._shown.get(attribute) != (value := self.cpu.read(attribute)):
                _overwrite(self._path(attribute), value)
                self._shown[attribute] = value
        if self.cpu.state is not State.OFFLINE:
            self._path("firmware").chmod(0o444)
        if self._shown.get("version") != (version := self.cpu.version()):
            _overwrite(self.folder / "version", version)
            self._shown["version"] = version


def make_tree(folder: Path, firmware: bytes | None = None) -> CpuTree:
    """A processor in `folder` that runs `firmware`, or whatever boot firmware is there already. Its machine has just started."""
    tree = CpuTree(folder, Cpu(folder / "firmware", BOOT_FIRMWARE))
    (tree.root / "class" / "remoteproc" / PROCESSOR).mkdir(parents=True, exist_ok=True)
    (folder / "firmware").mkdir(exist_ok=True)
    boot = folder / "firmware" / BOOT_FIRMWARE
    if firmware is not None or not boot.exists():
        boot.write_bytes(make_firmware("1.0") if firmware is None else firmware)
    for attribute in _ATTRIBUTES:
        (tree.root / "class" / "remoteproc" / PROCESSOR / attribute).touch()
    tree.power_cycle()
    return tree


async def keep_alive(tree: CpuTree, pause_s: float = 0.02) -> None:
    """Until it is cancelled."""
    while True:
        tree.step()
        await asyncio.sleep(pause_s)


@asynccontextmanager
async def serve_tree(tree: CpuTree, pause_s: float = 0.02) -> AsyncIterator[CpuTree]:
    """The same, beside the body."""
    task = asyncio.create_task(keep_alive(tree, pause_s))
    try:
        yield tree
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _overwrite(path: Path, value: str) -> None:
    """In place: a writer that has it open writes into the same file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, f"{value}\n".encode() if value else b"")
    finally:
        os.close(descriptor)
