"""The real swupdate, run so that its answer means something.

- Its sockets live under a TMPDIR of its own, its abstract socket in a network namespace of its own: many run at once.
- It runs as the daemon, which swupdate-client hands the bundle, and its installer's own words decide: "SWUPDATE successful",
  "[ERROR]", and at the end of every installation "Waiting for requests". `swupdate -i` is no judge (2022.12): its main thread
  asks for the status as soon as the bundle is in a socket, finds IDLE if the installer has not woken until then, calls that
  "SWUpdate was successful", and ends the process with status 1 in the middle of the installation, with its temporary files
  (`ipc_wait_for_complete`, `endupdate`). How often depends on the load alone.
- For the same reason nobody waits for swupdate-client. Its signal to the installer may be lost before that waits for one (a
  condition without a predicate, `network_initializer`): it is called again until the installer says that it began.
- It can hang: a deadline ends its whole process group.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.builders.keys import make_pki
from tests.peers import need, need_tool

_LAUNCHER = Path(__file__).with_name("swupdate_launch.py")
_BEGUN, _OVER = "Software Update started !", "Waiting for requests..."
_LOST_AFTER_S = 5.0
_LOOK_EVERY_S = 0.02
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
    def finished(self) -> bool:
        """Whether the installer came to an end, whichever."""
        return _OVER in self.log


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
        self._tool, self._client = need_tool("swupdate"), need_tool("swupdate-client")
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
    ) -> Verdict:
        """Install `bundle`; `select` is set,mode. With `serve`, every request goes to that server, as through a proxy."""
        command = [self._tool, "-v", "-B", "uboot" if environment else "none", "-k", str(self._anchors)]
        command += ["--cert-purpose", "codeSigning", "-H", self._hardware, *options]
        command += ["-e", select] if select else []
        if environment:
            around = replace(around, mounts=((environment.etc, Path("/etc")), *around.mounts))
        with tempfile.TemporaryDirectory(prefix="swu") as temporary:  # a short name: a socket's has 107 bytes
            self._run([*command, str(bundle)], around, serve, _Deadline(timeout_s), Path(temporary))
        return Verdict((self._folder / "log").read_text(errors="replace"))

    def _run(self, command: list[str], around: Surroundings, serve: Serve | None, deadline: "_Deadline", temporary: Path) -> None:
        """Run the daemon; the last word of `command` is the bundle."""
        *command, bundle = command
        log = self._folder / "log"
        ours, theirs = socket.socketpair()
        mounts = [[str(content), str(place)] for content, place in around.mounts]
        proxy = around.proxy and serve is not None
        order = {"control": theirs.fileno(), "mounts": mounts, "port": around.port, "proxy": proxy}
        launch = [*self._namespaces, sys.executable, str(_LAUNCHER), json.dumps(order | {"command": command})]
        with log.open("wb") as output, ours, group(launch, output.fileno(), theirs, temporary) as process:
            theirs.close()
            ours.settimeout(deadline.left_s)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            with socket.socket(fileno=descriptors[0]) as listening, (serve or nullcontext)(listening):
                ours.sendall(b"g")
                daemon = _Daemon(process, log, temporary, deadline)
                self._hand_over(bundle, daemon)
                if not daemon.says(_OVER, deadline.left_s):
                    what = "swupdate ended by itself" if daemon.has_ended() else "the test ended swupdate at its deadline"
                    output.write(f"\n[ERROR] : {what}\n".encode())

    def _hand_over(self, bundle: str, daemon: "_Daemon") -> None:
        """Until the installer begins."""
        environment = os.environ | {"TMPDIR": str(daemon.temporary)}
        while not daemon.is_listening() and daemon.waits():
            pass
        while daemon.waits() and not daemon.says(_BEGUN, 0):
            with (daemon.temporary / "client.log").open("wb") as said, suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [self._client, bundle],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    check=False,
                    timeout=daemon.deadline.left_s,
                )
            daemon.says(_BEGUN, _LOST_AFTER_S)


class _Deadline:
    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True, slots=True)
class _Daemon:
    """swupdate while it runs."""

    process: subprocess.Popen[bytes]
    log: Path
    temporary: Path
    deadline: _Deadline

    def is_listening(self) -> bool:
        return all((self.temporary / name).is_socket() for name in ("sockinstctrl", "swupdateprog"))

    def has_ended(self) -> bool:
        """Without reaping: its number still names its group."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def waits(self) -> bool:
        """Take a little time; False once there is nothing to wait for."""
        time.sleep(_LOOK_EVERY_S)
        return not self.has_ended() and self.deadline.left_s > 0

    def says(self, words: str, within_s: float) -> bool:
        """Whether the log has these words, or will within that time."""
        until = _Deadline(within_s)
        while words not in self.log.read_text(errors="replace"):
            if not self.waits() or not until.left_s:
                return words in self.log.read_text(errors="replace")
        return True


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
