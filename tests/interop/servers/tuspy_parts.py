"""tuspy, the tus project's own client in Python, which uploads as our pushers may: in parts, resumed, with checksums.

PyPI has it and tinydb as wheels; `tuspy.lock` names both with their SHA-256. What else it needs (requests, aiohttp) is in our own
environment.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.interop.servers.steps import BUILT, Say, is_marked, run

_FOLDER = BUILT / "tuspy"
_LIBRARIES, _MARK = _FOLDER / "lib", _FOLDER / "installed"
_LOCK: Final = Path(__file__).with_name("tuspy.lock")
_PATIENCE_S: Final = 300


def environment() -> Mapping[str, str]:
    """Where the client finds its libraries, run by our own Python."""
    return {"PYTHONPATH": str(_LIBRARIES)}


def is_installed() -> bool:
    """Whether it can be run."""
    return is_marked(_MARK, _digest())


def install(say: Say) -> None:
    """Get what is not there yet. `CannotInstallError`."""
    if is_installed():
        say("tuspy is there already")
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade"]
    run([*pip, "--target", _LIBRARIES, "-r", _LOCK], folder=_FOLDER, patience_s=_PATIENCE_S)
    _MARK.write_text(_digest())
    say("tuspy is installed")


def _digest() -> str:
    return hashlib.sha256(_LOCK.read_bytes()).hexdigest()
