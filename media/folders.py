"""A folder that stands for a stick: where there is no USB, for a trial run, and for whoever mounts by other means.

The folder is "plugged in" while it is there and not empty; another folder in its place is another insertion. Put a finished
folder there by renaming it: what is still being copied would be judged half-done.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from media.policy import Device
from media.udev import Change

BUS: Final = "folder"
_LOOK_EVERY_S: Final = 0.3


class Folders:
    """One folder in the place of a stick."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def changes(self) -> AsyncIterator[Change]:
        """As `Udev`."""
        known = self.look()
        if known is not None:
            yield Change(known.name, known, left_in=True)
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            found = self.look()
            if found == known:
                continue
            if known is not None:
                yield Change(known.name, None)
            if found is not None:
                yield Change(found.name, found)
            known = found

    def look(self) -> Device | None:
        """What stands there now."""
        try:
            known = self._folder.stat()
            with os.scandir(self._folder) as entries:
                empty = next(entries, None) is None
        except OSError:
            return None
        if empty:
            return None
        name = self._folder.name
        sequence = f"{known.st_dev}:{known.st_ino}"
        return Device(name, str(self._folder), bus=BUS, label=name, filesystem=BUS, filesystem_id=name, sequence=sequence)

    def is_present(self, device: Device) -> bool:
        """Whether this very folder is still there."""
        return self.look() == device
