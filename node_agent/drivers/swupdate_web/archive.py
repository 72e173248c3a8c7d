"""The bundles that a device was given, kept to be given again: the way back of a device that has no other.

A copy enters completely verified: it is hashed while it is written and read back, and its digest stands in the slot's record.
Before it is sent it is hashed again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from update.digest import Digest, digest_file
from update.durable import Disk
from update.errors import ReadBackError, SlotError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """One file for each slot, in a folder."""

    disk: Disk
    folder: Path

    def path(self, slot: str) -> Path:
        """Where the bundle of `slot` is."""
        return self.folder / f"{slot}.swu"

    def keep(self, slot: str, source: Path, progress: Callable[[int, int], None]) -> tuple[Digest, int]:
        """Copy `source`; the copy's digest and length. Errors: `ReadBackError`, `NoSpaceError`, `StoreError`."""
        self.disk.make_folder(self.folder)
        hasher, done, total = hashlib.sha256(), 0, source.stat().st_size
        with source.open("rb") as reading, self.disk.open(self.path(slot), fresh=True) as file:
            while block := reading.read(_BLOCK_BYTES):
                file.write_at(done, block)
                hasher.update(block)
                done += len(block)
                progress(done, total)
            file.sync()
        self.disk.sync_folder(self.folder)
        digest = Digest(hasher.hexdigest())
        if not self.holds(slot, digest):
            raise ReadBackError(f"{self.path(slot)} does not hold what was written into it; its disk is failing")
        return digest, done

    def holds(self, slot: str, digest: Digest) -> bool:
        """Whether the bundle of `slot` is there, and is this one; reads it."""
        return self.path(slot).exists() and digest_file(self.path(slot))[0] == digest

    def require(self, slot: str, digest: Digest | None) -> Path:
        """The file of what `slot` holds. `SlotError` where there is none, or it is damaged."""
        if digest is None or not self.holds(slot, digest):
            raise SlotError(f"no whole bundle of slot {slot} was kept: the device cannot be given again what it ran")
        return self.path(slot)

    def drop(self, slot: str) -> None:
        """Forget what `slot` held."""
        self.disk.remove(self.path(slot))
