"""What an FPGA says of itself, by a command of the integrator that reads its version register."""

import re
from dataclasses import dataclass

from node_agent.drivers.shelf.machine import Life, Seen
from node_agent.programs import run_program
from update.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Telling:
    """`pattern` has one group, the version in what `command` prints. `golden`: versions of which the golden bitstream is one."""

    command: tuple[str, ...]
    pattern: str
    timeout_s: float
    golden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigurationError(f"driver.version_pattern does not compile: {self.pattern!r}") from error
        if groups != 1:
            raise ConfigurationError(f"driver.version_pattern needs one group, the version: {self.pattern!r}")

    async def ask(self, wanted: str) -> Seen:
        """What runs. The golden one is a failure where `wanted` was started and is another; empty: nothing was started."""
        ended = await run_program(self.command, timeout_s=self.timeout_s, environment={})
        if not ended.succeeded:
            return Seen(Life.SILENT, reason=f"the version command {ended.describe()}"[:300])
        found = re.search(self.pattern, ended.output, re.MULTILINE)
        if found is None or not found[1]:
            return Seen(Life.SILENT, reason=f"the version command told no version: {ended.output[-100:]!r}")
        if found[1] in self.golden and wanted and wanted not in self.golden:
            reason = "the bitstream did not load, and the FPGA fell back to its golden one"
            return Seen(Life.FAILED, version=found[1], reason=reason)
        return Seen(Life.RUNNING, version=found[1])
