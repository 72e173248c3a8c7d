"""The patches that are made: files in the store's folder `pairs`, each named by what it is.

    <SHA-256 of the old zchunk header>.<of the new one>.<form>-<memory in bytes>.<SHA-256 of the patch>
    <old>.<new>.<form>-<memory>.part                                    while it is made

So a patch is found, served and removed without any record beside it. It is a cache: the room removes what was used longest
ago, and counts what is being made. A patch is hashed before its first use by each process; one that rotted is removed, and
made again when somebody asks.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from update.chunks.pair import PatchForm
from update.digest import Digest, digest_file
from update.durable import Disk

_PART: Final = ".part"
_NAME: Final = re.compile(r"(?P<pair>[0-9a-f]{64}\.[0-9a-f]{64}\.[a-z]+-[0-9]+)\.(?P<sha256>[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pair:
    """What leads from where to where: the digests of both zchunk headers, form, and memory of whoever applies it in bytes."""

    old: Digest
    new: Digest
    form: PatchForm
    memory_bytes: int

    @property
    def name(self) -> str:
        """The beginning of its file's name."""
        return f"{self.old}.{self.new}.{self.form}-{self.memory_bytes}"


@dataclass(frozen=True, slots=True)
class Made:
    """A patch at hand."""

    path: Path
    sha256: Digest
    size: int


class Shelf:
    """One folder. Methods read files: they are for threads, except `part`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._proved: set[Path] = set()

    def sweep(self) -> None:
        """Remove what an earlier run left half-done; called before anything is made."""
        for path in tuple(self._folder.glob(f"*{_PART}")):
            self._disk.remove(path)

    def clear(self) -> None:
        """Remove everything: no patches are offered any more."""
        for path in tuple(self._folder.iterdir()):
            self._disk.remove(path)

    def part(self, pair: Pair) -> Path:
        """Where it is made."""
        return self._folder / f"{pair.name}{_PART}"

    def keep(self, pair: Pair, sha256: Digest) -> Made:
        """Give the part, complete and synced, its final name. Errors: `StoreError`."""
        final = self._folder / f"{pair.name}.{sha256}"
        self._disk.publish(self.part(pair), final)
        self._proved.add(final)
        return Made(final, sha256, final.stat().st_size)

    def drop_part(self, pair: Pair) -> None:
        """Remove what did not become a patch."""
        self._disk.remove(self.part(pair))

    def find(self, pair: Pair) -> Made | None:
        """The patch, if it is here and whole; this use is noted. Errors: `StoreError` if a damaged one cannot be removed."""
        for path, sha256 in self._files(pair):
            try:
                if self._is_whole(path, sha256):
                    os.utime(path)
                    return Made(path, sha256, path.stat().st_size)
            except OSError:  # the room took it a moment ago
                continue
            self._disk.remove(path)
        return None

    def _files(self, pair: Pair) -> Iterator[tuple[Path, Digest]]:
        for path in sorted(self._folder.glob(f"{pair.name}.*")):
            if match := _NAME.fullmatch(path.name):
                yield path, Digest(match["sha256"])

    def _is_whole(self, path: Path, sha256: Digest) -> bool:
        if path in self._proved:
            return True
        with suppress(FileNotFoundError):
            if digest_file(path)[0] == sha256:
                self._proved.add(path)
        return path in self._proved
