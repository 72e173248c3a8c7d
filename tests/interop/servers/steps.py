"""Steps of getting a real server: where it goes, how a program is run for it, and why it could not be had."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

BUILT: Final = Path(__file__).parents[3] / "build" / "interop"
"""Everything that `make interop-tools` makes; `make clean` forgets it."""

Say = Callable[[str], None]

_LAST_LINES = 25


class CannotInstallError(Exception):
    """What was tried, what came of it, and what a person can do."""


def program(name: str, package: str) -> str:
    """Path of a program that is needed; `package` is the Debian package to name where it is absent."""
    found = shutil.which(name)
    if found is None:
        raise CannotInstallError(f"{name} is not installed; install it, e.g. Debian package {package}")
    return found


def run(command: Sequence[str | Path], *, folder: Path, patience_s: int, environment: Mapping[str, str] | None = None) -> str:
    """What `command` wrote to its standard output; `CannotInstallError` with its last lines when it fails or takes too long."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **(environment or {})}
    shown = " ".join(map(str, command[:4]))
    try:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=patience_s)
    except subprocess.TimeoutExpired as error:
        raise CannotInstallError(f"{shown} took more than {patience_s} s; run it again, it goes on where it was") from error
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])
        raise CannotInstallError(f"{shown} ended with {done.returncode}:\n{last}")
    return done.stdout


def is_marked(mark: Path, digest: str) -> bool:
    """Whether an installation of exactly these inputs was finished."""
    return mark.is_file() and mark.read_text() == digest
