"""Which slot runs, from the kernel's command line: the one witness that no environment can contradict.

A boot script passes `fieldrelay.slot=a`; a board that tells slots apart by their root device gets a pattern with one
group, and a table from what it captures to the slot's name. A simulated board writes the same line into a file.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from update.errors import BootloaderError, ConfigurationError

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class CommandLine:
    """Where the command line stands and how it names the slot; `names` maps the captured text to a slot where they differ."""

    path: Path = Path("/proc/cmdline")
    pattern: str = r"(?:^|\s)fieldrelay\.slot=(\S+)"
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a pattern that could never name a slot."""
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigurationError(f"the slot pattern {self.pattern!r} does not compile: {error}") from error
        if groups != 1:
            raise ConfigurationError(f"the slot pattern {self.pattern!r} has {groups} groups; it needs exactly one, the slot")

    def booted(self) -> str:
        """The running slot; `BootloaderError` where the line names none, or two different ones."""
        try:
            with self.path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode("utf-8", "replace")
        except OSError as error:
            raise BootloaderError(f"cannot read the kernel command line {self.path}: {error.strerror or error}") from error
        found = set(re.findall(self.pattern, text.strip()))
        if len(found) != 1:
            named = ", ".join(sorted(found)) or "no slot"
            raise BootloaderError(
                f"{self.path} names {named}, one is needed (pattern {self.pattern!r}); let the boot script pass fieldrelay.slot"
            )
        captured = found.pop()
        return self.names.get(captured, captured)
