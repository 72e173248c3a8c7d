"""By which reader a medium is read: through the mounter, or in our own process where the kernel or the policy does not mount."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from media.config import MediaSection, Reader
from media.fat import FatMedium
from media.folder import FolderMedium
from media.folders import BUS
from media.handed import Handed, hand_over
from media.medium import Medium
from media.policy import Device
from update.errors import MediumRefusedError

_LOG = logging.getLogger(__name__)
_OURS = "vfat"

Present = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Opened:
    """A medium that can be read; `handed` if it is mounted. Whoever has it closes it."""

    medium: Medium
    handed: Handed | None = None

    @property
    def writable(self) -> bool:
        """Whether reports may be written onto it."""
        return self.handed is not None and self.handed.writable

    def close(self) -> None:
        """Let go of it; idempotent."""
        self.medium.close()
        if self.handed is not None:
            self.handed.close()


class Readers:
    """Opens media as the section says."""

    def __init__(self, section: MediaSection) -> None:
        self._section = section

    async def open(self, device: Device, present: Present) -> Opened:
        """Errors: `MediumRefusedError`, `MediumUnreadableError`, `MediumGoneError`."""
        if device.bus == BUS:
            return Opened(await asyncio.to_thread(FolderMedium.at, Path(device.node)))
        match self._section.reader:
            case Reader.MOUNT:
                return await self._mounted(device, present)
            case Reader.OWN:
                return await _own(device, present)
            case Reader.AUTO:
                try:
                    return await self._mounted(device, present)
                except MediumRefusedError as error:
                    if device.filesystem != _OURS:
                        raise
                    _LOG.info("%s is read without mounting: %s", device.node, error)
                return await _own(device, present)

    async def _mounted(self, device: Device, present: Present) -> Opened:
        handed = await hand_over(self._section.socket, device.name)
        return Opened(FolderMedium(handed.descriptor, present), handed)


async def _own(device: Device, present: Present) -> Opened:
    if device.filesystem != _OURS:
        raise MediumRefusedError(f"{device.filesystem} is read only where it is mounted; start fieldrelay-mounter, or use vfat")
    return Opened(await asyncio.to_thread(FatMedium.at, Path(device.node), present))
