"""Which images a microcontroller has had, and the bytes of them: what a way back needs that the device does not offer.

A slot of this driver is an image, not a place: MCUboot swaps the places. Of each of the two slots a record says what was written
(`drivers.slots.records`), and the image itself is kept by its digest, since a device that confirmed a new image gives the old one
neither back nor another start: to return is to upload it again. An image is read back by its digest; a damaged one is none.

Blocks for milliseconds: the driver calls it in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node_agent.drivers.driver import SlotState
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from update.bundle.mcuboot_image import McubootImage, parse_image
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import BundleError, ConfigurationError

PART: Final = "image"
"""The one part of a slot, in its record."""


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image that is at hand, whole and read."""

    data: bytes
    sha256: Digest
    meaning: McubootImage

    @property
    def image_hash(self) -> bytes:
        """What the device calls it by."""
        return self.meaning.image_hash


def read_known(data: bytes, *, max_bytes: int) -> KnownImage:
    """`data` as an image. Errors: those of `parse_image`."""
    return KnownImage(data, digest_of(data), parse_image(data, max_bytes=max_bytes))


class Images:
    """The two slots of one device; `installed` is the image that the device was delivered with, in the first of them."""

    def __init__(self, disk: Disk, folder: Path, names: Sequence[str], installed: Path | None) -> None:
        if len(names) != 2 or len(set(names)) != 2 or not all(names):
            raise ConfigurationError(f"a device has two slots of different names, got {', '.join(names) or 'none'}")
        self.names = tuple(names)
        self._disk = disk
        self._folder = folder
        self._records = SlotRecords(disk, folder)
        self._installed = installed
        self._first: KnownImage | None = None
        self._read: dict[Digest, KnownImage] = {}

    def record(self, name: str) -> SlotRecord:
        """What is known of a slot; of the first one, before anything was written, what the device was delivered with."""
        record = self._records.read(name)
        if record == SlotRecord() and name == self.names[0] and self._installed is not None:
            found = self._delivered(self._installed)
            return SlotRecord(SlotState.CONFIRMED, str(found.meaning.version), parts={PART: _part(found)})
        return record

    def image(self, name: str) -> KnownImage | None:
        """The image of a slot, if it is known and at hand."""
        part = self.record(name).parts.get(PART)
        if part is None:
            return None
        if part.digest not in self._read:
            try:
                data = self._path(part.digest).read_bytes()
                known = read_known(data, max_bytes=part.size)
            except (OSError, BundleError):
                return None
            if known.sha256 != part.digest:
                return None
            self._read[part.digest] = known
        return self._read[part.digest]

    def other(self, name: str) -> str:
        """The other slot."""
        return self.names[1 - self.names.index(name)]

    def keep(self, image: KnownImage) -> Mapping[str, PartRecord]:
        """Store the bytes of an image; returns the parts of a record that names it."""
        if not self._path(image.sha256).exists():
            self._disk.make_folder(self._path(image.sha256).parent)
            self._disk.write_file(self._path(image.sha256), image.data)
        self._read[image.sha256] = image
        return {PART: _part(image)}

    def write(self, name: str, record: SlotRecord) -> None:
        """Replace the record of a slot."""
        self._records.write(name, record)

    def keep_delivered(self) -> None:
        """Store what the device was delivered with, before anything else is written to it."""
        name = self.names[0]
        if self.record(name) != self._records.read(name) and self._first is not None:
            record = self.record(name)
            self.keep(self._first)
            self.write(name, record)

    def forget_others(self) -> None:
        """Remove the images that no record names."""
        named = {part.digest for name in self.names for part in self.record(name).parts.values()}
        for path in sorted(self._path(Digest("")).parent.glob("*.bin")):
            if path.stem not in named:
                self._disk.remove(path)

    def _delivered(self, path: Path) -> KnownImage:
        if self._first is None:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ConfigurationError(f"driver.installed: {path}: {error.strerror or error}") from error
            self._first = read_known(data, max_bytes=len(data))
            self._read[self._first.sha256] = self._first
        return self._first

    def _path(self, digest: Digest) -> Path:
        return self._folder / "images" / f"{digest}.bin"


def _part(image: KnownImage) -> PartRecord:
    return PartRecord(len(image.data), image.sha256)
