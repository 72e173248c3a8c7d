"""A secondary processor under Linux' remoteproc, as its attributes show it, with firmware that misbehaves on demand.

The part without files: what the kernel takes and refuses (Linux, `drivers/remoteproc/remoteproc_sysfs.c` and
`remoteproc_core.c`), and what firmware does once it is started. `cpu_tree` keeps it alive in a folder.

- `firmware` is refused with EBUSY unless the processor is offline; a name that is empty with EINVAL.
- `start` is refused with EBUSY while it runs, with ENOENT where the file is not there, with EINVAL where the file is no firmware;
  then it stays offline. `stop` of one that is offline is refused with EINVAL, and of a crashed one by kernels that are so
  (`keeps_crashed`).
- With recovery enabled a crashed processor is started again at once; `recover` does it once.
- A start of the machine sets every attribute to what the driver in the kernel has, and loads the boot firmware.

Firmware for it is an ELF file that holds `fieldrelay-firmware VERSION BEHAVIOUR`; any other is of no known version and well.
"""

import errno
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import RLock
from typing import Final

from update.bundle.elf_image import check_elf
from update.errors import BundleError

ARM: Final = 40
_MARK = re.compile(rb"fieldrelay-firmware (\S{1,100}) (\S{1,20})\0")
_BASE = 0x1000_0000


class Behaviour(StrEnum):
    """What firmware does once it is started."""

    GOOD = "good"
    CRASHES = "crashes"  # it crashes after a moment, at every start
    CRASHES_ONCE = "crashes-once"  # only at its first start
    HANGS = "hangs"  # it runs, and gives no sign of life
    DEAD = "dead"  # the processor does not take it


class State(StrEnum):
    """What `state` says."""

    OFFLINE = "offline"
    RUNNING = "running"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a file says of itself."""

    version: str
    behaviour: Behaviour


def make_firmware(version: str, behaviour: Behaviour = Behaviour.GOOD, *, size: int = 20_000, machine: int = ARM) -> bytes:
    """An ELF file of one segment, of which every byte follows from `version`."""
    mark = f"fieldrelay-firmware {version} {behaviour}\0".encode()
    body = mark + bytes((number * 7 + len(version) + sum(version.encode())) & 0xFF for number in range(max(0, size - len(mark))))
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    head = ident + struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, _BASE, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 84, _BASE, _BASE, len(body), len(body), 5, 4)
    return head + segment + body


def read_firmware(data: bytes) -> Firmware:
    """Errors: `DeviceImageError`."""
    check_elf(data)
    found = _MARK.search(data)
    if found is None:
        return Firmware("", Behaviour.GOOD)
    known = found[2].decode("ascii", "replace")
    return Firmware(found[1].decode("utf-8", "replace"), Behaviour(known) if known in list(Behaviour) else Behaviour.GOOD)


@dataclass(slots=True)
class Cpu:
    """One processor; safe to call from several threads. `behaviours` by version overrule what firmware says of itself."""

    firmware_folder: Path
    boot_firmware: str
    name: str = "simulated-cpu"
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    keeps_crashed: bool = False
    firmware: str = ""
    state: State = State.OFFLINE
    recovery: str = "enabled"
    starts: int = 0
    runs: Firmware | None = None
    _crashed_once: set[str] = field(default_factory=set)
    _lock: RLock = field(default_factory=RLock)

    def power_cycle(self) -> None:
        """The machine starts anew."""
        with self._lock:
            self.firmware, self.state, self.recovery, self.runs = self.boot_firmware, State.OFFLINE, "enabled", None
            try:
                self._start()
            except OSError:
                self.state = State.OFFLINE

    def tick(self) -> None:
        """A moment passes: what crashes has crashed, and is started again where recovery is enabled."""
        with self._lock:
            if self.state is State.RUNNING and self.runs is not None and self._falls(self.runs):
                self.state, self.runs = State.CRASHED, None
                if self.recovery == "enabled":
                    self._start()

    def version(self) -> str:
        """What the firmware that runs says, empty while nothing gives a sign of life."""
        with self._lock:
            alive = self.state is State.RUNNING and self.runs is not None
            if not alive or self.runs is None or self._behaviour(self.runs) is Behaviour.HANGS:
                return ""
            return self.runs.version

    def read(self, attribute: str) -> str:
        """Errors: `OSError` ENOENT."""
        with self._lock:
            values: Mapping[str, str] = {
                "name": self.name,
                "firmware": self.firmware,
                "state": self.state,
                "recovery": self.recovery,
                "coredump": "disabled",
            }
            if attribute not in values:
                raise _refusal(errno.ENOENT)
            return str(values[attribute])

    def write(self, attribute: str, text: str) -> None:
        """Errors: `OSError` as the kernel says it."""
        with self._lock:
            match attribute, text.strip():
                case "firmware", name:
                    self._name_firmware(name)
                case "state", "start":
                    if self.state is State.RUNNING:
                        raise _refusal(errno.EBUSY)
                    self._start()
                case "state", "stop":
                    self._stop()
                case "recovery", "enabled" | "disabled" as wanted:
                    self.recovery = wanted
                    if wanted == "enabled" and self.state is State.CRASHED:
                        self._start()
                case "recovery", "recover":
                    if self.state is State.CRASHED:
                        self._start()
                case "name", _:
                    raise _refusal(errno.EACCES)
                case _:
                    raise _refusal(errno.EINVAL)

    def _name_firmware(self, name: str) -> None:
        if self.state is not State.OFFLINE:
            raise _refusal(errno.EBUSY)
        if not name:
            raise _refusal(errno.EINVAL)
        self.firmware = name

    def _start(self) -> None:
        try:
            found = read_firmware((self.firmware_folder / self.firmware).read_bytes())
        except BundleError as error:
            self.state = State.OFFLINE
            raise _refusal(errno.EINVAL) from error
        except OSError:
            self.state = State.OFFLINE
            raise
        if self._behaviour(found) is Behaviour.DEAD:
            self.state = State.OFFLINE
            raise _refusal(errno.ETIMEDOUT)
        self.state, self.runs, self.starts = State.RUNNING, found, self.starts + 1

    def _stop(self) -> None:
        if self.state is State.OFFLINE or (self.state is State.CRASHED and self.keeps_crashed):
            raise _refusal(errno.EINVAL)
        self.state, self.runs = State.OFFLINE, None

    def _behaviour(self, firmware: Firmware) -> Behaviour:
        return self.behaviours.get(firmware.version, firmware.behaviour)

    def _falls(self, firmware: Firmware) -> bool:
        match self._behaviour(firmware):
            case Behaviour.CRASHES:
                return True
            case Behaviour.CRASHES_ONCE if firmware.version not in self._crashed_once:
                self._crashed_once.add(firmware.version)
                return True
        return False


def _refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))
