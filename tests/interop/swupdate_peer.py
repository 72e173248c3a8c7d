"""The real swupdate, run so that its answer means something.

- Its sockets live under a TMPDIR of its own, its abstract socket in a network namespace of its own: many run at once.
- Its exit status is unreliable (it has ended with 1 after a success and without a word), and so is its last line: "SWUpdate
  was successful" was seen in 9 of 25 runs that the installer had refused. What the installer reports ("SWUPDATE
  successful", "[ERROR]"), and the content, decide.
- A run that neither succeeded nor logged an error is no verdict and is repeated; so is the rare one (1 in some 500 seen)
  that lost its own copy of the description in its temporary folder.
- It can hang: a deadline ends its whole process group.
"""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.builders.keys import make_pki
from tests.peers import need, need_tool

_LAUNCHER = Path(__file__).with_name("swupdate_launch.py")
_MAX_RUNS = 3
_ENVIRONMENT_BYTES = 0x10000

Serve = Callable[[socket.socket], AbstractContextManager[object]]
"""Serves on a listening socket while the context lasts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What swupdate said: `log` is everything it wrote."""

    log: str

    @property
    def succeeded(self) -> bool:
        return "SWUPDATE successful !" in self.log and "[ERROR]" not in self.log

    @property
    def refused(self) -> bool:
        return not self.succeeded and "[ERROR]" in self.log

    @property
    def undecided(self) -> bool:
        """No word, or it lost its own temporary copy of the description: neither says anything about the bundle."""
        lost = re.search(r"/sw-description(\.sig)? cannot be opened", self.log) is not None
        return lost or not (self.succeeded or self.refused)


class BootEnvironment:
    """A redundant U-Boot environment in a file, and a folder to be mounted over /etc that says where it is."""

    def __init__(self, folder: Path, **variables: str) -> None:
        make, self._print, self._set = need_tool("mkenvimage"), need_tool("fw_printenv"), need_tool("fw_setenv")
        text, image, self._file = folder / "variables.txt", folder / "copy.img", folder / "environment.img"
        text.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        subprocess.run([make, "-r", "-s", hex(_ENVIRONMENT_BYTES), "-o", image, text], check=True, timeout=30)
        self._file.write_bytes(image.read_bytes() * 2)
        self.etc = folder / "etc"
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)
        size = hex(_ENVIRONMENT_BYTES)
        (self.etc / "fw_env.config").write_text(f"{self._file} 0x0 {size}\n{self._file} {size} {size}\n")

    def set(self, name: str, value: str) -> None:
        """Change a variable, as a bootloader does."""
        command = [self._set, "-c", str(self.etc / "fw_env.config"), name, value]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def variables(self) -> dict[str, str]:
        command = [self._print, "-c", str(self.etc / "fw_env.config")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What swupdate finds around it: the server at `port` of its loopback (0: any), used as its `proxy` or as the origin that
    its URLs name; `mounts` are (content, place), content in the place of what is there otherwise.
    """

    port: int = 0
    proxy: bool = True
    mounts: tuple[tuple[Path, Path], ...] = ()


class SwupdatePeer:
    """swupdate of one device: its trust anchors, its hardware and its scratch folder."""

    def __init__(self, folder: Path, *, hardware: str = "demo:1.0", anchors: Path | None = None) -> None:
        self._tool = need_tool("swupdate")
        self._namespaces = namespaces()
        self._folder = folder / "swupdate"
        self._folder.mkdir()
        self._hardware = hardware
        self._anchors = anchors or make_pki().write(self._folder / "pki").anchors

    def install(
        self,
        bundle: Path,
        *,
        select: str = "",
        environment: BootEnvironment | None = None,
        serve: Serve | None = None,
        options: Sequence[str] = (),
        timeout_s: float = 60,
        around: Surroundings = Surroundings(),
        most_runs: int = _MAX_RUNS,
    ) -> Verdict:
        """Install `bundle`; `select` is set,mode. With `serve`, every request goes to that server, as through a proxy.

        A run without a verdict is repeated until there were `most_runs`.
        """
        command = [self._tool, "-v", "-B", "uboot" if environment else "none", "-k", str(self._anchors)]
        command += ["--cert-purpose", "codeSigning", "-H", self._hardware, *options]
        command += ["-e", select] if select else []
        verdict = Verdict("")
        if environment:
            around = replace(around, mounts=((environment.etc, Path("/etc")), *around.mounts))
        for _ in range(most_runs):
            verdict = self._run([*command, "-i", str(bundle)], around, serve, timeout_s)
            if not verdict.undecided:
                break
        return verdict

    def _run(self, command: list[str], around: Surroundings, serve: Serve | None, timeout_s: float) -> Verdict:
        temporary, log = self._folder / "tmp", self._folder / "log"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        ours, theirs = socket.socketpair()
        mounts = [[str(content), str(place)] for content, place in around.mounts]
        proxy = around.proxy and serve is not None
        order = {"control": theirs.fileno(), "mounts": mounts, "port": around.port, "proxy": proxy}
        launch = [*self._namespaces, sys.executable, str(_LAUNCHER), json.dumps(order | {"command": command})]
        with log.open("wb") as output, ours, group(launch, output.fileno(), theirs, temporary) as process:
            theirs.close()
            ours.settimeout(timeout_s)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            with socket.socket(fileno=descriptors[0]) as listening, (serve or nullcontext)(listening):
                ours.sendall(b"g")
                if not _ended(process, timeout_s):
                    output.write(b"\n[ERROR] : the test ended swupdate at its deadline\n")
        return Verdict(log.read_text(errors="replace"))


def namespaces() -> list[str]:
    """The command that gives a process mounts and a network of its own, as root or as a user who may."""
    prefix = [need_tool("unshare"), *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--net"]
    done = subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=30)
    need(present=done.returncode == 0, reason="neither root nor user namespaces: swupdate cannot be kept apart")
    return prefix


@contextmanager
def group(command: list[str], output: int, control: socket.socket, temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is ended with the context."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        stdin=subprocess.DEVNULL,
        env=environment | {"TMPDIR": str(temporary)},
        pass_fds=[control.fileno()],
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The leader was not reaped yet, so its number still names this group and no other.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end without reaping."""
    descriptor = os.pidfd_open(process.pid)
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
