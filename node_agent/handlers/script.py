"""Shell scripts of a bundle: run with `preinst` before the images and with `postinst` after them, as SWUpdate does.

A script runs from a folder of its own that only this user may enter, with a time limit, without a terminal, and only the
end of what it prints is kept. Its interpreter is the one that its first line names (`/bin/sh` without one), called with
arguments, never through a shell's line, so that a folder mounted `noexec` is no obstacle. An interrupted update runs its
scripts again: they must be idempotent.
"""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from node_agent.programs import run_program
from update.bundle.entries import Entry
from update.bundle.reader import open_member
from update.bundle.verified import VerifiedBundle
from update.errors import HandlerError

MAX_SCRIPT_BYTES: Final = 4 << 20
_SHEBANG = b"#!"
_PREFIX = "script-"
_MAX_FIRST_LINE_BYTES = 255


class Phase(StrEnum):
    """The first argument of every script."""

    BEFORE = "preinst"
    AFTER = "postinst"


@dataclass(frozen=True, slots=True)
class Script:
    """A verified script, read into memory; `data` is its second argument where it is not empty."""

    name: str
    content: bytes
    data: str = ""


def read_script(bundle: VerifiedBundle, entry: Entry) -> Script:
    """Read a member as a script. Errors: `HandlerError` above `MAX_SCRIPT_BYTES`, `HashMismatchError`."""
    size = bundle.members[entry.filename].size
    if size > MAX_SCRIPT_BYTES:
        raise HandlerError(
            f"script {entry.filename} has {size} bytes, at most {MAX_SCRIPT_BYTES} are run; deliver data as an image"
        )
    with open_member(bundle, entry.filename) as stored:
        return Script(entry.filename, b"".join(iter(lambda: stored.read(MAX_SCRIPT_BYTES), b"")), entry.data)


async def run_scripts(
    scripts: Sequence[Script], phase: Phase, *, folder: Path, timeout_s: float, environment: Mapping[str, str]
) -> None:
    """Run each in order; the first that fails ends it. `folder` holds the private folders. Errors: `HandlerError`."""
    for script in scripts:
        with TemporaryDirectory(prefix=_PREFIX, dir=folder) as private:
            path = Path(private) / "script"
            path.write_bytes(script.content)
            path.chmod(0o700)
            arguments = [*_interpreter(script), str(path), phase, *([script.data] if script.data else [])]
            ended = await run_program(arguments, timeout_s=timeout_s, environment=environment)
        if not ended.succeeded:
            raise HandlerError(f"script {script.name} {phase} {ended.describe()}")


def forget_scripts(folder: Path) -> None:
    """Remove the private folders that a killed process left behind."""
    for rest in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(rest, ignore_errors=True)


def _interpreter(script: Script) -> list[str]:
    """The words in front of the script's path."""
    if not script.content.startswith(_SHEBANG):
        return ["/bin/sh"]
    line = script.content[: _MAX_FIRST_LINE_BYTES + 1].partition(b"\n")[0][len(_SHEBANG) :]
    words = line.decode("utf-8", "replace").strip().split(None, 1)
    if not words or len(line) >= _MAX_FIRST_LINE_BYTES or not words[0].startswith("/"):
        raise HandlerError(f"script {script.name} begins with {shlex.quote(str(line[:80]))}, which names no interpreter")
    return words
