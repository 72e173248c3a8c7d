"""What a device must be able to do, and to say of itself, so that the shelf's driver can look after it.

`Machine` is the small Protocol behind the six words of `Driver`: whoever implements it keeps no records, knows no slots, and is
never called twice at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from node_agent.drivers.shelf.images import KeptImage
from update.digest import Digest


class Life(StrEnum):
    """How a device is."""

    RUNNING = "running"
    STOPPED = "stopped"  # nothing runs, and nothing went wrong
    FAILED = "failed"  # what was started crashed, or the device says that it is not well
    SILENT = "silent"  # nobody can tell: it starts, hangs, or is away


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device says of itself: which image is in it, by digest or by version, as far as it can tell.

    `reason` says for people why it is not RUNNING.
    """

    life: Life
    image: Digest | None = None
    version: str | None = None
    reason: str = ""


class Machine(Protocol):
    """One device. Errors of every word: `DeviceError`."""

    async def look(self) -> Seen:
        """Ask it. A device that does not answer is SILENT, which is no error."""
        ...

    async def stage(self, image: KeptImage, progress: Callable[[int], None]) -> None:
        """Judge the image, and bring it to the place beside what runs, if there is one. What runs is not disturbed.

        Errors besides: `BundleError` for an image that is not for this device.
        """
        ...

    async def start(self, image: KeptImage) -> None:
        """Have the device run `image` on trial, whatever it did before.

        Returns when it was told; whether it came up, `look` says. Called again after an interruption, it begins anew.
        """
        ...

    async def go_back(self, image: KeptImage | None) -> None:
        """Have the device run what it ran before: `image`; None where the device itself holds it. Otherwise as `start`."""
        ...

    async def confirm(self, image: KeptImage) -> None:
        """Keep what runs on trial: the device's next start brings it too. Again is no error."""
        ...

    async def prefer(self, image: KeptImage) -> None:
        """Have a start of the device that nobody asks for bring `image`, without disturbing what runs. Again is no error."""
        ...

    async def read_back(self, target: Path, max_bytes: int) -> bool:
        """Copy the image that runs to `target`, which is new; False where the device does not give it."""
        ...
