"""Where the images on a shelf come from: the bundle, the device itself, or the file that it was delivered with."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node_agent.drivers.driver import Progress
from node_agent.drivers.shelf.images import KeptImage, Shelf
from node_agent.drivers.shelf.machine import Machine
from update.bundle.entries import Compression, Entry, Handler
from update.bundle.reader import open_payload
from update.bundle.verified import VerifiedBundle
from update.digest import Digest
from update.errors import ConfigurationError, DescriptionError, LimitError, NoWayBackError

_BLOCK_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Supply:
    """Puts images on `shelf`, of at most `max_bytes`. `device` is what bundles call the device by."""

    shelf: Shelf
    device: str
    max_bytes: int
    installed: Path | None

    def entry(self, images: tuple[Entry, ...]) -> Entry:
        """The one image for this device. Errors: `DescriptionError`."""
        found = [entry for entry in images if entry.device == self.device]
        if len(found) != 1 or found[0].type is not Handler.RAW or found[0].offset:
            devices = ", ".join(entry.device for entry in images)[:200]
            wanted = f"one raw image for the device {self.device!r}"
            raise DescriptionError(f"the bundle must bring {wanted}; it brings images for {devices or 'none'}")
        return found[0]

    def of_bundle(self, bundle: VerifiedBundle, entry: Entry, progress: Progress) -> KeptImage:
        """The image of `entry`, unpacked. Errors: those of `open_payload` and `Shelf.put`."""
        total = bundle.members[entry.filename].size  # what is known before; a compressed image grows beyond it
        if entry.compressed is Compression.NONE and total > self.max_bytes:
            raise LimitError(f"the image {entry.filename} has {total} bytes, its device has room for {self.max_bytes}")
        with open_payload(bundle, entry, max_bytes=self.max_bytes) as payload:
            pieces = iter(lambda: payload.read(_BLOCK_BYTES), b"")
            return self.shelf.put(pieces, max_bytes=self.max_bytes, progress=lambda done: progress(min(done, total), total))

    async def of_running(self, machine: Machine, seen: Digest | None) -> KeptImage | None:
        """A copy of what the device runs; None where there is none. `NoWayBackError` where the copy is of something else."""
        image = await self._delivered(machine)
        if image is not None and seen not in {None, image.digest}:
            raise NoWayBackError(
                f"the device runs the image {seen}; what was given as its copy is {image.digest}: name the right one"
            )
        return image

    async def _delivered(self, machine: Machine) -> KeptImage | None:
        if self.installed is not None:
            return await asyncio.to_thread(self._of_file, self.installed)
        await asyncio.to_thread(self.shelf.disk.make_folder, self.shelf.folder)
        fetched = self.shelf.folder / f"{self.shelf.prefix}read-back"
        try:
            given = await machine.read_back(fetched, self.max_bytes)
            return await asyncio.to_thread(self._of_file, fetched) if given else None
        finally:
            fetched.unlink(missing_ok=True)

    def _of_file(self, path: Path) -> KeptImage:
        try:
            with path.open("rb") as file:
                pieces = iter(lambda: file.read(_BLOCK_BYTES), b"")
                return self.shelf.put(pieces, max_bytes=self.max_bytes, progress=quiet)
        except OSError as error:
            raise ConfigurationError(f"cannot read the image {path}: {error.strerror or error}") from error


def quiet(_done: int) -> None:
    """Nobody looks at it."""
