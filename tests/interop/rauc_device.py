"""A device with the real `rauc` service: two slots and a bootloader made of files, on a D-Bus of its own.

    with RaucDevice(folder, keyring, compatible="press").running() as device:
        device.install(file)                 # `rauc install`
        device.primary, device.slot("B")     # what would start next, what was written

It needs root, since RAUC mounts the bundle through a loop device; bundles in the verity and crypt formats also need the
kernel's device mapper. A machine that lacks one cannot run them, whatever is installed: the tests skip there.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.rauc_tool import Verdict
from tests.interop.servers.running import running
from tests.peers import need_tool

SLOT_BYTES = 4 << 20
BUS_NAME = "de.pengutronix.rauc"
_TIMEOUT_S = 120
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"""
_BACKEND = """#!/bin/sh
here=$(dirname "$0")
case "$1" in
  get-primary) cat "$here/primary" ;;
  set-primary) echo "$2" > "$here/primary" ;;
  get-state) cat "$here/state.$2" ;;
  set-state) echo "$3" > "$here/state.$2" ;;
  get-current) echo A ;;
esac
"""


def need_loop_devices() -> None:
    """Skip where bundles cannot be mounted."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("rauc mounts bundles: that needs root and loop devices")
    if "squashfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no squashfs")


def has_device_mapper() -> bool:
    """Whether the kernel has one: the device's node alone may have been made by whatever package was installed."""
    try:
        os.close(os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def need_device_mapper() -> None:
    """Skip where dm-verity cannot be set up."""
    if not has_device_mapper():
        pytest.skip("the kernel offers no device mapper, which rauc needs to mount verity and crypt bundles")


class RaucDevice:
    """See the module's docstring. The folder's path is short, for the socket in it."""

    def __init__(
        self,
        folder: Path,
        keyring: Path,
        *,
        compatible: str,
        variant: str = "",
        classes: Sequence[str] = ("rootfs",),
        bootnames: str = "AB",
        backend: str = _BACKEND,
        system: Sequence[str] = (),
        handlers: Sequence[str] = (),
    ) -> None:
        """`backend` is the text of the custom bootloader; `system` and `handlers` are further lines of these sections."""
        self.folder = folder
        self._rauc, self._daemon, self._send = need_tool("rauc"), need_tool("dbus-daemon"), need_tool("dbus-send")
        (folder / "bus.conf").write_text(_BUS.format(socket=folder / "bus"))
        (folder / "backend").write_text(backend)
        (folder / "backend").chmod(0o755)
        (folder / "primary").write_text("A\n")
        lines = ["[system]", f"compatible={compatible}", "bootloader=custom", f"mountprefix={folder / 'mnt'}", *system]
        lines += [f"statusfile={folder / 'status'}", *([f"variant-name={variant}"] if variant else [])]
        lines += ["[handlers]", f"bootloader-custom-backend={folder / 'backend'}", *handlers, "[keyring]", f"path={keyring}"]
        for slot_class in classes:
            for number, name in enumerate(bootnames):
                lines += [f"[slot.{slot_class}.{number}]", f"device={self._part(slot_class, name)}", "type=raw"]
                lines += [f"bootname={name}" if slot_class == "rootfs" else f"parent=rootfs.{number}"]
                self._part(slot_class, name).write_bytes(bytes(SLOT_BYTES))
                (folder / f"state.{name}").write_text("good\n")
        (folder / "system.conf").write_text("\n".join([*lines, ""]))
        self.address = address = f"unix:path={folder / 'bus'}"
        starter = {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_STARTER_ADDRESS": address}  # RAUC takes the system's bus otherwise
        self._bus = {"DBUS_SESSION_BUS_ADDRESS": address, "DBUS_SYSTEM_BUS_ADDRESS": address, **starter}

    @contextmanager
    def running(self) -> Iterator["RaucDevice"]:
        """With its bus and service, which started from slot A."""
        with self.bus(), self.service("A"):
            yield self

    @contextmanager
    def bus(self) -> Iterator[None]:
        """Its D-Bus alone."""
        daemon = [self._daemon, f"--config-file={self.folder / 'bus.conf'}", "--nofork", "--nopidfile", "--print-address=1"]
        with running(daemon, self._folder_of("daemon"), lambda said: "unix:path=" in said or None):
            yield

    @contextmanager
    def service(self, booted: str) -> Iterator[None]:
        """The service on that bus, started from a slot."""
        service = [self._rauc, f"--conf={self.folder / 'system.conf'}", f"--override-boot-slot={booted}", "service"]
        with running(["env", *self._assignments(), *service], self._folder_of("service"), self._owns_its_name):
            yield

    def kill_service(self) -> None:
        """End the service as a crash does."""
        ask = ["GetConnectionUnixProcessID", f"string:{BUS_NAME}"]
        os.kill(int(self._asked(*ask).split()[-1]), signal.SIGKILL)

    def unmount(self) -> None:
        """Take away what a crashed service left mounted; one that ended in order leaves nothing."""
        place = self.folder / "mnt" / "bundle"
        while place.is_mount():
            subprocess.run(["umount", place], check=True, timeout=_TIMEOUT_S)

    @property
    def primary(self) -> str:
        """The slot that would start next."""
        return (self.folder / "primary").read_text().strip()

    def slot(self, name: str, slot_class: str = "rootfs") -> bytes:
        """The content of a slot."""
        return self._part(slot_class, name).read_bytes()

    def install(self, file: Path) -> Verdict:
        """`rauc install`, which asks the service over D-Bus."""
        command = [self._rauc, "install", str(file)]
        done = subprocess.run(
            command, env={**os.environ, **self._bus}, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        return Verdict(done.returncode == 0, done.stdout + done.stderr)

    def _part(self, slot_class: str, name: str) -> Path:
        return self.folder / f"{slot_class}.{name}"

    def _folder_of(self, process: str) -> Path:
        folder = self.folder / process
        folder.mkdir(exist_ok=True)
        return folder

    def _assignments(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._bus.items()]

    def _owns_its_name(self, _said: str) -> bool | None:
        """Whether the service can be asked; None for not yet."""
        return "boolean true" in self._asked("NameHasOwner", f"string:{BUS_NAME}") or None

    def _asked(self, method: str, *arguments: str) -> str:
        """What the bus itself answers."""
        ask = [self._send, "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"]
        command = [*ask, f"org.freedesktop.DBus.{method}", *arguments]
        environment = {**os.environ, **self._bus}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
        return done.stdout
