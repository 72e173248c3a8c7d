"""LUKS: a medium that is encrypted, opened by the real `cryptsetup` with a key file of the site.

The key file is named in the configuration, never by whoever asks. The mapping is read-only unless reports may be written, and is
closed with the medium.
"""

import logging
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from update.errors import MediumRefusedError, MediumUnreadableError

_LOG = logging.getLogger(__name__)
_PATIENCE_S: Final = 120.0
_SEARCH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_WRONG_KEY: Final = 2


@dataclass(frozen=True, slots=True)
class Unlocked:
    """An open mapping: `node` is what may be mounted."""

    tool: str
    name: str

    @property
    def node(self) -> Path:
        """The block device with what was encrypted."""
        return Path("/dev/mapper") / self.name

    def close(self) -> None:
        """Forget the key. What is still mounted is let go as soon as nobody uses it (`--deferred`)."""
        done = _run(self.tool, "close", "--deferred", self.name)
        if done.returncode:
            _LOG.warning("cannot close %s: %s", self.name, done.stderr.strip()[:200])


def unlock(device: str, key_file: Path | None, *, writable: bool) -> Unlocked:
    """Open `device` (`/dev/sda1`). Errors: `MediumRefusedError` (no key here, no tool), `MediumUnreadableError` (wrong key)."""
    if key_file is None:
        raise MediumRefusedError(f"{device} is encrypted, and no key_file is configured for it in [[allow]]")
    tool = shutil.which("cryptsetup", path=_SEARCH)
    if tool is None:
        raise MediumRefusedError(f"{device} is encrypted, and cryptsetup is not installed here")
    unlocked = Unlocked(tool, f"fieldrelay-{Path(device).name}")
    flags = [] if writable else ["--readonly"]
    done = _run(tool, "open", "--type", "luks", *flags, "--key-file", str(key_file), device, unlocked.name)
    if done.returncode == _WRONG_KEY:
        raise MediumUnreadableError(f"the key in {key_file} does not open {device}")
    if done.returncode:
        raise MediumUnreadableError(f"cannot open {device}: {done.stderr.strip()[:200] or done.returncode}")
    return unlocked


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise MediumUnreadableError(f"{command[0]} did not answer within {_PATIENCE_S:g} s") from error
