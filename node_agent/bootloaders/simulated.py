"""U-Boot's environment in a text file, for tests and for the demonstration where libubootenv's tools are absent.

One `name=value` per line, replaced as a whole through `Disk`: what the redundant copies give a real board, the atomic
rename gives this one. A power-on is `scripted.start`.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from node_agent.bootloaders.boot_script import DEFAULTS
from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.scripted import ScriptedBootloader
from update.durable import Disk
from update.errors import BootloaderError

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SimulatedBootloaderConfig:
    """The environment's file, and the stand-in for the kernel's command line that the board writes at every start.

    `fresh`: where there is no such file, the board is delivered and started for the first time.
    """

    environment: Path
    command_line: CommandLine = field(default_factory=CommandLine)
    fresh: bool = False


class SimulatedEnvironment:
    """`Environment` in one file."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def seed(self, variables: Mapping[str, str] = DEFAULTS) -> None:
        """Make the environment that a factory would have written."""
        lines = [f"{name}={value}\n" for name, value in sorted(variables.items()) if value]
        self._disk.write_file(self._path, "".join(lines).encode())

    def read(self) -> Mapping[str, str]:
        """Every variable; `BootloaderError` for a file that is absent, too large, or not of lines `name=value`."""
        try:
            with self._path.open("rb") as file:
                text = file.read(_MAX_BYTES + 1).decode()
        except (OSError, ValueError) as error:
            raise BootloaderError(f"cannot read the simulated environment {self._path}; seed it again") from error
        lines = [line.partition("=") for line in text.split("\n") if line]
        if len(text) > _MAX_BYTES or not all(name and equals for name, equals, _ in lines):
            raise BootloaderError(f"the simulated environment {self._path} is damaged; seed it again")
        return {name: value for name, _, value in lines}

    def write(self, changes: Mapping[str, str]) -> None:
        """Replace the file with all of `changes` applied."""
        self.seed({**self.read(), **changes})


def create(config: SimulatedBootloaderConfig, disk: Disk) -> ScriptedBootloader:
    """The bootloader as the agent sees it."""
    line = config.command_line

    def started(slot: str) -> None:
        disk.write_file(line.path, f"fieldrelay.slot={slot}\n".encode())

    environment = SimulatedEnvironment(config.environment, disk)
    board = ScriptedBootloader(environment, line.booted, started)
    if config.fresh and not (config.environment.exists() and line.path.exists()):
        disk.make_folder(config.environment.parent)
        disk.make_folder(line.path.parent)
        environment.seed()
        board.start()
    return board
