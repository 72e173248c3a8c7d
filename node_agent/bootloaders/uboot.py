"""U-Boot's environment through libubootenv's tools `fw_printenv` and `fw_setenv` (behaviour of 0.3.2).

- Two lines in `fw_env.config` make the environment redundant: the older copy is overwritten, so that a power cut leaves
  the newer one. An environment in one place is overwritten there, a cut destroys it: it is refused. Offsets are decimal
  or `0x`, sizes are hexadecimal with or without `0x`.
- All variables of one script travel in one write; several calls would be several. Values are `name=value` per line, and
  an empty value removes the variable.
- `fw_printenv` lists what exists; asked for an absent variable it prints an empty one with status 0. Status 243 means
  that no copy has a valid checksum.
- The environment replaces U-Boot's built-in one altogether: a factory seeds the full default environment.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.scripted import ScriptedBootloader
from update.durable import Disk
from update.errors import BootloaderError

_SCRIPT = "/proc/self/fd/0"
_MAX_OUTPUT_BYTES = 1 << 20
_MAX_CONFIG_BYTES = 64 * 1024
_NO_VALID_COPY = 243
_CONFIG_LINE = re.compile(r"(\S+)\s+(0x[0-9a-fA-F]+|0|[1-9]\d*)\s+((?:0x)?[0-9a-fA-F]+)(?:\s+\S+){0,3}", re.ASCII)


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class UbootConfig:
    """Where the environment and the tools are; `timeout_s` bounds one call of a tool."""

    environment: Path = Path("/etc/fw_env.config")
    command_line: CommandLine = field(default_factory=CommandLine)
    print_tool: str = "fw_printenv"
    set_tool: str = "fw_setenv"
    timeout_s: float = 30.0


class _Copy(NamedTuple):
    """One line of fw_env.config: a place of the environment, in bytes."""

    device: str
    offset: int
    size: int


class UbootEnvironment:
    """`Environment` in two redundant copies, through the real tools."""

    def __init__(self, config: UbootConfig) -> None:
        self._config = config

    def read(self) -> Mapping[str, str]:
        """Every variable; `BootloaderError` where the copies are not redundant or none is valid."""
        _check_redundant(self._config.environment)
        lines = self._run([self._config.print_tool, "-c", str(self._config.environment)]).splitlines()
        pairs = [line.partition("=") for line in lines]
        return {name: value for name, equals, value in pairs if equals}

    def write(self, changes: Mapping[str, str]) -> None:
        """Set all of `changes` by one script, which is one write; then read them back."""
        _check_redundant(self._config.environment)
        script = "".join(f"{name}={value}\n" for name, value in changes.items())
        self._run([self._config.set_tool, "-c", str(self._config.environment), "-s", _SCRIPT], script)
        found = self.read()
        for name, value in changes.items():
            if (read := found.get(name, "")) != value:
                raise BootloaderError(f"boot variable {name}: wrote {value!r}, read back {read!r}; is the environment full?")

    def _run(self, arguments: Sequence[str], script: str = "") -> str:
        """One call of a tool; its standard output."""
        try:
            done = subprocess.run(
                arguments, input=script.encode(), capture_output=True, timeout=self._config.timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BootloaderError(f"{arguments[0]} did not end within {self._config.timeout_s:g} s; is its lock held?") from error
        except OSError as error:
            raise BootloaderError(f"cannot run {arguments[0]}: {error.strerror or error}; install libubootenv's tools") from error
        if done.returncode == _NO_VALID_COPY:
            raise BootloaderError(f"no valid copy of the boot environment ({self._config.environment}); seed the full one")
        if done.returncode != 0 or len(done.stdout) > _MAX_OUTPUT_BYTES:
            said = done.stderr[-400:].decode("utf-8", "replace").strip()
            raise BootloaderError(f"{arguments[0]} ended with status {done.returncode}: {said or 'no message'}")
        return done.stdout.decode("utf-8", "replace")


def create(config: UbootConfig, _disk: Disk) -> ScriptedBootloader:
    """The bootloader as the agent sees it. The tools write by themselves, so that `Disk` has no part in it."""
    return ScriptedBootloader(UbootEnvironment(config), config.command_line.booted)


def _check_redundant(path: Path) -> None:
    """Refuse a configuration that does not name two separate copies of one size."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise BootloaderError(f"cannot read {path}: {error.strerror or error}; it must name two copies") from error
    copies = [_read_copy(path, line.strip()) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if len(copies) != 2:
        raise BootloaderError(
            f"{path} names {len(copies)} places of the environment, two are needed: one place alone does not survive a power cut"
        )
    first, second = sorted(copies, key=lambda copy: (copy.device, copy.offset))
    overlap = first.device == second.device and first.offset + first.size > second.offset
    if overlap or first.size != second.size:
        raise BootloaderError(f"{path}: the two copies must be separate and of one size, got {first} and {second}")


def _read_copy(path: Path, line: str) -> _Copy:
    matched = _CONFIG_LINE.fullmatch(line)
    if matched is None:
        raise BootloaderError(f"{path}: a line is 'FILE OFFSET SIZE', got {line[:80]!r}")
    return _Copy(matched[1], int(matched[2], 0), int(matched[3], 16))
