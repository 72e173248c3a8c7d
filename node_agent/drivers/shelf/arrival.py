"""Whether a device came up as what it was given, and stays so for a while."""

import asyncio
import time
from dataclasses import dataclass

from node_agent.drivers.shelf.machine import Life, Machine, Seen
from update.digest import Digest
from update.errors import HealthError, SilentError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall run: the digest of the image, and what the device calls it; empty where nobody knows."""

    digest: Digest | None
    version: str

    def is_in(self, seen: Seen) -> bool:
        """Whether a device that runs something runs this, as far as it tells."""
        if seen.image is not None and self.digest is not None and seen.image != self.digest:
            return False
        return seen.version is None or not self.version or seen.version == self.version

    def __str__(self) -> str:
        return f"version {self.version}" if self.version else f"the image {self.digest or 'before'}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a device may take to come up, how long a trial must stay up, and the pause between two looks. Seconds."""

    start_timeout_s: float
    watch_s: float
    pause_s: float


async def await_up(machine: Machine, wanted: Wanted, patience: Patience) -> None:
    """Until the device says that it runs what is wanted. Errors: `HealthError`, `SilentError`."""
    until = time.monotonic() + patience.start_timeout_s
    while True:
        seen = await machine.look()
        if seen.life is Life.RUNNING and wanted.is_in(seen):
            return
        if seen.life is Life.FAILED:
            raise HealthError(f"the device did not come up with {wanted}: {complaint(seen)}")
        if time.monotonic() >= until:
            kind = SilentError if seen.life is Life.SILENT else HealthError
            limit = f"{patience.start_timeout_s:g} s"
            raise kind(f"the device does not run {wanted} {limit} after it was started: {complaint(seen)}")
        await asyncio.sleep(patience.pause_s)


async def watch(machine: Machine, wanted: Wanted, patience: Patience) -> None:
    """A trial that falls over soon is none. Errors: `HealthError`."""
    until = time.monotonic() + patience.watch_s
    while time.monotonic() < until:
        await asyncio.sleep(patience.pause_s)
        seen = await machine.look()
        if seen.life is not Life.RUNNING or not wanted.is_in(seen):
            raise HealthError(f"the device came up with {wanted}, and did not stay so: {complaint(seen)}")


def complaint(seen: Seen) -> str:
    """What a device says of itself, for a message."""
    told = f"it is {seen.life}" + (f" and says version {seen.version}" if seen.version else "")
    return f"{told} ({seen.reason})" if seen.reason else told
