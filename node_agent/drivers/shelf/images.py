"""Images by their digest, in a folder of the agent's machine: what a device is handed, and the way back to what it ran.

A file appears under its final name only when it is complete, synced and read back, so a name with a digest is a promise. It is
checked again before it is used: an image whose bytes changed is none, and is written again by the next `put`.

Blocks for as long as an image takes to read: the driver calls it in a thread.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node_agent.drivers.slots.records import PartRecord
from update.digest import Digest, digest_file
from update.durable import Disk
from update.errors import LimitError, ReadBackError

PART: Final = "image"
"""The one part of a slot, in its record."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """A whole image that is at hand. `version` is what the device calls it, empty where nobody said so."""

    path: Path
    size: int
    digest: Digest
    version: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One device's images, named `<prefix><digest><suffix>`; other files of the folder are nobody's business here."""

    disk: Disk
    folder: Path
    prefix: str = ""
    suffix: str = ".bin"
    _seen: dict[Digest, tuple[int, int, int]] = field(default_factory=dict)

    def path(self, digest: Digest) -> Path:
        """Where the image of that digest is, if it is."""
        return self.folder / f"{self.prefix}{digest}{self.suffix}"

    def put(self, pieces: Iterable[bytes], *, max_bytes: int, progress: Callable[[int], None]) -> KeptImage:
        """Store what `pieces` hold. Errors: `LimitError` above `max_bytes`, `ReadBackError`, `StoreError`, those of `pieces`."""
        self.disk.make_folder(self.folder)
        incoming, state, size = self.folder / f"{self.prefix}incoming", hashlib.sha256(), 0
        with self.disk.open(incoming, fresh=True) as file:
            for piece in pieces:
                if size + len(piece) > max_bytes:
                    raise LimitError(f"the image has more than {max_bytes} bytes, which is the room on its device")
                file.write_at(size, piece)
                state.update(piece)
                size += len(piece)
                progress(size)
            file.sync()
        digest = Digest(state.hexdigest())
        if digest_file(incoming) != (digest, size):
            raise ReadBackError(f"{incoming} does not hold what was written into it; its disk is failing")
        found = self.find(PartRecord(size, digest))
        if found is not None:
            self.disk.remove(incoming)
            return found
        self.disk.publish(incoming, self.path(digest))
        return KeptImage(self.path(digest), size, digest)

    def find(self, part: PartRecord | None) -> KeptImage | None:
        """The image that a slot's record names; None where it is not whole."""
        if part is None:
            return None
        path = self.path(part.digest)
        try:
            about = path.stat()
            signature = (about.st_ino, about.st_size, about.st_mtime_ns)
            if self._seen.get(part.digest) != signature and digest_file(path) != (part.digest, part.size):
                return None
        except OSError:
            return None
        self._seen[part.digest] = signature
        return KeptImage(path, part.size, part.digest)

    def forget_others(self, named: Collection[str]) -> None:
        """Remove the images that are not `named`, and what an interrupted `put` left."""
        pattern = re.compile(re.escape(self.prefix) + r"([0-9a-f]{64})" + re.escape(self.suffix), re.ASCII)
        for path in sorted(self.folder.glob(f"{self.prefix}*")):
            found = pattern.fullmatch(path.name)
            left = path.name in {f"{self.prefix}incoming", f"{self.prefix}read-back"}
            if left or (found is not None and found[1] not in named):
                self.disk.remove(path)
