"""A virtual machine that stands for the gateway's computer: Debian's generic kernel, our Python, and sticks plugged in by QMP.

The initrd holds what the product's processes really import, found by importing them here; nothing needs root or a mount.
"""

import json
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.peers import need, need_tool

ROOT = Path(__file__).parents[2]
KERNELS = (ROOT / "build" / "kernel", Path("/"))
MODULES = (
    "xhci_pci", "usb_storage", "uas", "sd_mod", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "exfat", "ext4", "crc32c_generic",
    "dm_crypt", "algif_skcipher", "algif_hash", "xts", "aes_generic", "sha256_generic",
)  # fmt: skip
START_S = 120.0
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t tmpfs none /run
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod $module; done
export DM_DISABLE_UDEV=1 PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH={libraries}
{python} {script}
/bin/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is unpacked somewhere, with its modules."""

    root: Path
    version: str

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @classmethod
    def find(cls) -> Self:
        """Debian's generic kernel for amd64, unpacked into build/kernel or installed."""
        for root in KERNELS:
            for image in sorted(root.glob("boot/vmlinuz-*-amd64")):
                version = image.name.removeprefix("vmlinuz-")
                if "cloud" not in version and (root / "lib" / "modules" / version).is_dir():
                    return cls(root, version)
        need(present=False, reason="no generic kernel of Debian: unpack linux-image-*-amd64 into build/kernel (dpkg -x)")
        raise AssertionError

    def modules(self, folder: Path) -> list[Path]:
        """The files of `MODULES` and of what they need, in the order in which they go in."""
        shutil.copytree(self.root / "lib" / "modules" / self.version, folder / "lib" / "modules" / self.version)
        run("depmod", "-b", folder, self.version)
        found: dict[Path, None] = {}
        for module in MODULES:
            told = run("modprobe", "-d", folder, "-S", self.version, "--show-depends", module)
            for line in told.splitlines():
                if line.startswith("insmod"):
                    found[Path(line.split()[1])] = None
        return list(found)


def run(tool: str, *arguments: str | Path) -> str:
    """The output of a tool."""
    done = subprocess.run([need_tool(tool), *arguments], check=True, capture_output=True, text=True, timeout=100)
    return done.stdout


def build_initrd(folder: Path, kernel: Kernel, script: Path) -> Path:
    """What the machine starts with."""
    tree, scratch = folder / "tree", folder / "modules"
    tree.mkdir()
    modules = kernel.modules(scratch)
    for module in modules:
        copy(module, tree / "modules.d" / module.name)
    (tree / "modules").write_text("\n".join(f"/modules.d/{module.name}" for module in modules))
    (tree / "etc").mkdir()
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nreader:x:1000:1000:reader:/:/bin/sh\n")
    (tree / "bin").mkdir()
    shutil.copy2(need_tool("busybox"), tree / "bin" / "busybox")
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    files = {python, *imported(script), *(ROOT / script.relative_to(ROOT),)}
    libraries = {library for file in files if file.suffix == ".so" or file == python for library in needed(file)}
    udev = next(Path(line.split()[-1]) for line in run("ldconfig", "-p").splitlines() if "libudev.so.1 " in line)
    locks = Path(need_tool("cryptsetup"))
    copy(locks, tree / "sbin" / locks.name)
    for file in files | libraries | {udev} | needed(udev) | needed(locks):
        copy(file, tree / file.relative_to("/"))
    path = ":".join(dict.fromkeys(str(each) for each in (ROOT, *site_folders())))
    folders = ":".join(sorted({str(file.parent) for file in libraries | {udev}}))
    init = tree / "init"
    init.write_text(INIT.format(python=python, path=path, libraries=folders, script=script))
    init.chmod(0o755)
    packed = folder / "initrd.gz"
    command = "find . | cpio -o -H newc --quiet | gzip -1"
    with packed.open("wb") as out:
        subprocess.run(["/bin/sh", "-c", command], cwd=tree, stdout=out, check=True, timeout=100)
    return packed


def imported(script: Path) -> set[Path]:
    """The files of every module that the script imports, compiled ones beside them."""
    code = (
        "import runpy, sys, encodings.idna, concurrent.futures.thread\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='imported')\n"
        "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
    )
    told = subprocess.run([sys.executable, "-c", code, script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    sources = {Path(line) for line in told.stdout.splitlines() if line.startswith("/")}
    compiled = {cache for file in sources for cache in (file.parent / "__pycache__").glob(f"{file.stem}.cpython-*.pyc")}
    return sources | {file for file in compiled if "opt-" not in file.name}


def site_folders() -> list[str]:
    """Where libraries are."""
    return [each for each in sys.path if each.endswith("site-packages")]


def needed(file: Path) -> set[Path]:
    """The libraries that a program or library loads."""
    told = subprocess.run(["ldd", file], capture_output=True, text=True, check=False, timeout=60).stdout
    words = [word for line in told.splitlines() for word in line.split() if word.startswith("/")]
    return {Path(word) for word in words}


def copy(source: Path, target: Path) -> None:
    """With its time: compiled modules count only as long as their source has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(source, target)


@dataclass
class Hall:
    """A running machine. `heard` is every line of its console so far, with the seconds since its start."""

    control: "socket.SocketIO"
    lines: "queue.Queue[str]"
    began: float = field(default_factory=time.monotonic)
    heard: list[str] = field(default_factory=list)

    def until(self, *words: str) -> str:
        """The next line of the hall that holds all these words."""
        end = time.monotonic() + START_S
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{words} never came:\n" + "\n".join(self.heard[-60:])) from None
            self.heard.append(f"{time.monotonic() - self.began:7.2f} {line}")
            if line.startswith("HALL ") and all(word in line.split() for word in words):
                return line

    def plug_in(self, stick: str) -> None:
        self.command("device_add", driver="usb-storage", id=stick, drive=stick, serial=stick, removable=True)

    def pull(self, stick: str) -> None:
        self.command("device_del", id=stick)
        while json.loads(self.control.readline()).get("event") != "DEVICE_DELETED":
            continue

    def command(self, name: str, **arguments: object) -> None:
        self.control.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while "return" not in (answer := json.loads(self.control.readline())):
            assert "error" not in answer, answer


@contextmanager
def running(folder: Path, kernel: Kernel, initrd: Path, sticks: Mapping[str, Path]) -> Iterator[Hall]:
    """The machine, until the end of the block; `sticks` by the names under which they are plugged in."""
    where = folder / "qmp"
    command = [
        need_tool("qemu-system-x86_64"),
        "-accel",
        "tcg",
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-m",
        "640",
        "-display",
        "none",
    ]
    command += ["-no-reboot", "-kernel", str(kernel.image), "-initrd", str(initrd), "-serial", "stdio", "-net", "none"]
    command += [
        "-append",
        "console=ttyS0 quiet panic=-1",
        "-device",
        "qemu-xhci,id=x",
        "-qmp",
        f"unix:{where},server=on,wait=off",
    ]
    for name, image in sticks.items():
        command += ["-blockdev", f"driver=raw,node-name={name},file.driver=file,file.filename={image}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as machine:
        try:
            assert machine.stdout is not None
            lines: queue.Queue[str] = queue.Queue()
            reading = threading.Thread(target=_read, args=(machine.stdout, lines), daemon=True)
            reading.start()
            with _connect(where) as connection, connection.makefile("rwb", buffering=0) as control:
                json.loads(control.readline())
                hall = Hall(control, lines)
                hall.command("qmp_capabilities")
                yield hall
        finally:
            machine.kill()


def _connect(where: Path) -> socket.socket:
    end = time.monotonic() + START_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(where))
            connection.settimeout(START_S)
        except OSError:
            connection.close()
            assert time.monotonic() < end, "the machine does not start"
            time.sleep(0.05)
        else:
            return connection


def _read(stream: "Iterator[bytes]", lines: "queue.Queue[str]") -> None:
    for line in stream:
        lines.put(line.decode(errors="replace").strip())
