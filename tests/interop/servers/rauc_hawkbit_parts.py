"""The RAUC project's own hawkBit client in Python (`rauc-hawkbit`), which asks the real rauc service over D-Bus.

1. PyPI has it and its event loop as wheels; `rauc_hawkbit.lock` names both with their SHA-256.
2. PyGObject is Debian's `python3-gi`, since PyPI has it as source only: so the client runs in the system's Python. aiohttp comes
   from our own environment, which is of the same minor version.
"""

import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.interop.servers.steps import BUILT, CannotInstallError, Say, is_marked, run

PYTHON: Final = Path("/usr/bin/python3")

_FOLDER = BUILT / "rauc-hawkbit"
_LIBRARIES, _MARK = _FOLDER / "lib", _FOLDER / "installed"
_LOCK = Path(__file__).with_name("rauc_hawkbit.lock")
_PATIENCE_S = 300
_NEEDED = "import sys, gi; print('.'.join(map(str, sys.version_info[:2])))"


def environment() -> Mapping[str, str]:
    """Where the client finds its libraries."""
    return {"PYTHONPATH": f"{_LIBRARIES}:{sysconfig.get_paths()['purelib']}"}


def is_installed() -> bool:
    """Whether it can be run."""
    return is_marked(_MARK, _digest())


def install(say: Say) -> None:
    """Get what is not there yet. `CannotInstallError`."""
    if is_installed():
        say("rauc-hawkbit is there already")
        return
    _check_python()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade"]
    run([*pip, "--target", _LIBRARIES, "-r", _LOCK], folder=_FOLDER, patience_s=_PATIENCE_S)
    _MARK.write_text(_digest())
    say("rauc-hawkbit is installed")


def _check_python() -> None:
    done = subprocess.run([PYTHON, "-c", _NEEDED], capture_output=True, text=True, check=False) if PYTHON.exists() else None
    if done is None or done.returncode != 0:
        raise CannotInstallError(f"{PYTHON} cannot import gi; install e.g. Debian package python3-gi")
    if done.stdout.strip() != (own := ".".join(map(str, sys.version_info[:2]))):
        raise CannotInstallError(f"{PYTHON} is Python {done.stdout.strip()}, our own is {own}: aiohttp cannot be shared")


def _digest() -> str:
    return hashlib.sha256(_LOCK.read_bytes()).hexdigest()
