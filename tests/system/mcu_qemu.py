"""A microbit in QEMU whose flash outlives a restart, which QEMU's own does not.

QEMU stops the machine where the firmware resets it. Whoever supervises it saves the flash, ends QEMU and starts it anew. Saving
is `memsave` (through the processor's eyes): `pmemsave` writes zeros for the memory of this machine.

A byte that comes before the firmware listens jams the emulated UART until the next start, and the console has no sign of life
that could be waited for. So it is left alone for `QUIET_S` after power comes, here and in the driver's `settle_s`.

board = McuBoard(folder, firmware)
with board.supervised():  # power on; resets are carried out
    ...                   # board.place leads to its console
    board.power_cycle()
board.cut_after(0.02)     # power on, and off again so many seconds later
"""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.peers import need_tool
from tests.system.mcu_firmware import Firmware

FLASH_BYTES: Final = 0x40000
START_S: Final = 30.0
QUIET_S: Final = 3.0
_POLL_S: Final = 0.05


class McuBoard:
    """One board; its flash is `flash`, or what the firmware brings as long as that is not there."""

    def __init__(self, folder: Path, firmware: Firmware) -> None:
        self.flash = folder / "flash.bin"
        self.starts = 0
        self._folder = folder
        self._firmware = firmware
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: _Control | None = None
        self._lock = threading.Lock()

    @property
    def place(self) -> dict[str, object]:
        """The keys of the driver's configuration."""
        return {"port": f"socket://127.0.0.1:{self._port}"}

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Powered, and started again after each reset of its own; the flash is saved at the end."""
        ended = threading.Event()
        self._power_on()
        watcher = threading.Thread(target=self._watch, args=(ended,))
        watcher.start()
        time.sleep(QUIET_S)
        try:
            yield
            with self._lock:
                self._save()
        finally:
            ended.set()
            watcher.join(START_S)
            self._power_off()

    def power_cycle(self) -> None:
        """Off in whatever it does, and on."""
        with self._lock:
            self._restart()
        time.sleep(QUIET_S)

    def cut_after(self, running_s: float) -> int:
        """On, off after `running_s`; how many pages of 1 KiB changed."""
        before = self.flash.read_bytes()
        self._power_on(halted=True)
        try:
            self._control_of().execute("cont")
            time.sleep(running_s)
            self._save()
        finally:
            self._power_off()
        after = self.flash.read_bytes()
        return sum(before[at : at + 1024] != after[at : at + 1024] for at in range(0, FLASH_BYTES, 1024))

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_POLL_S):
            with self._lock:
                if not ended.is_set() and self._control_of().stopped():
                    self._restart()

    def _restart(self) -> None:
        self._save()
        self._power_off()
        self._power_on()

    def _save(self) -> None:
        control = self._control_of()
        control.execute("stop")
        written = self._folder / "written.bin"
        control.execute("memsave", {"val": 0, "size": FLASH_BYTES, "filename": str(written), "cpu-index": 0})
        assert written.stat().st_size == FLASH_BYTES
        written.rename(self.flash)

    def _power_on(self, *, halted: bool = False) -> None:
        path = self._folder / "qmp"
        path.unlink(missing_ok=True)
        stored = f"file={self.flash},addr=0,force-raw=on" if self.flash.exists() else f"file={self._firmware.merged}"
        console = f"socket,id=con,host=127.0.0.1,port={self._port},server=on,wait=off"
        command = [need_tool("qemu-system-arm"), "-cpu", "cortex-m0", "-machine", "microbit", "-display", "none"]
        command += ["-chardev", console, "-serial", "chardev:con", "-monitor", "none", "-qmp", f"unix:{path},server=on,wait=off"]
        command += ["-action", "reboot=shutdown,shutdown=pause", "-device", f"loader,{stored}", *(["-S"] if halted else [])]
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._control = _Control(path)
        self.starts += 1

    def _power_off(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
        self._control = self._process = None

    def _control_of(self) -> "_Control":
        assert self._control is not None
        return self._control


class _Control:
    """QEMU's machine protocol: one JSON object a line."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + START_S
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                assert time.monotonic() < deadline, f"no QEMU at {path}"
                time.sleep(_POLL_S)
        self._socket.settimeout(START_S)
        self._pending = b""
        self._stopped = False
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments or {}}).encode())
        while "return" not in (answer := self._read()):
            assert "error" not in answer, answer

    def stopped(self) -> bool:
        """Whether the machine stopped by itself."""
        self._socket.settimeout(0.001)
        with suppress(TimeoutError):
            self._read()
        self._socket.settimeout(START_S)
        return self._stopped

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> dict[str, object]:
        while b"\n" not in self._pending:
            block = self._socket.recv(4096)
            assert block, "QEMU ended"
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, object] = json.loads(line)
        self._stopped = self._stopped or found.get("event") == "STOP"
        return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
