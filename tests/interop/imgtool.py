"""imgtool, MCUboot's own tool that signs images: fetched once from the package index, and believed by its pinned digest only.

What it is built on (click, cryptography, cbor2, intelhex) is in the development lock, so it runs in this interpreter.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import need

FETCHED = Path(__file__).parents[2] / "build" / "tools"
_VERSION = "2.5.0"
_SHA256 = "1039763d2d7589f2fa370854d221ed1846380c5b14c21a3e7094e8a4dded4dc1"
_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Imgtool:
    """The tool, as it was unpacked into `place`."""

    place: Path

    def run(self, *arguments: str | Path) -> str:
        """What it printed; it must end well."""
        command = [sys.executable, "-c", "from imgtool.main import imgtool; imgtool()", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(self.place)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sign(self, source: Path, target: Path, version: str, *options: str | Path, slot: str = "0x1a000") -> Path:
        """`source` (a bare payload) as an image at `target`."""
        shape = ("-H", "0x200", "--pad-header", "-S", slot, "--align", "4")
        self.run("sign", "-v", version, *shape, *options, source, target)
        return target


def need_imgtool() -> Imgtool:
    """The tool; skips where the package index cannot be reached, fails under REQUIRE_TOOLS=1."""
    place = FETCHED / f"imgtool-{_VERSION}"
    with alone(FETCHED / "imgtool.lock"):
        if not (place / "imgtool" / "main.py").exists():
            wanted = FETCHED / "imgtool.txt"
            wanted.write_text(f"imgtool=={_VERSION} --hash=sha256:{_SHA256}\n")
            pip("install", "--no-deps", "--require-hashes", "--target", str(place), "-r", str(wanted))
    return Imgtool(place)


def pip(*arguments: str) -> None:
    """Run pip; skips where it cannot get what it shall (fails under REQUIRE_TOOLS=1)."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S, stdin=subprocess.DEVNULL)
    need(present=done.returncode == 0, reason=f"pip cannot {' '.join(_shown(arguments))}: {done.stderr[-400:]}")


def _shown(arguments: Sequence[str]) -> Sequence[str]:
    return [each for each in arguments if not each.startswith("/")]


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One of several test processes fetches, the others wait for it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
