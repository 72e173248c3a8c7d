"""A medium that stands as an open folder: a mount handed over by the mounter, or any folder in its place.

The device may vanish under its mount. Then the kernel answers with errors that a failing device also gives, and what it still has
in memory as if nothing were wrong: `present` tells the two apart. Another file system mounted below the root is not entered.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from media.medium import MAX_DEPTH, MAX_ENTRIES, Entry, EntryKind, shown
from update.errors import FieldrelayError, MediumGoneError, MediumLimitError, MediumUnreadableError, NotFoundError, ProtocolError
from update.store.beneath import open_file_beneath, open_folder_beneath


def _always() -> bool:
    """A plain folder does not go away."""
    return True


class FolderMedium:
    """The tree below an open folder, which it takes over and closes. `present`: whether its device is still there."""

    def __init__(self, descriptor: int, present: Callable[[], bool] = _always) -> None:
        self._root = descriptor
        self._present = present
        self._device = os.fstat(descriptor).st_dev
        self._open = True

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The tree below `folder`. Errors: `MediumUnreadableError`."""
        try:
            return cls(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise MediumUnreadableError(f"cannot open {folder}: {error.strerror or error}; name a readable folder") from error

    def walk(self) -> Iterator[Entry]:
        """As `Medium`; one folder is read at a time."""
        waiting: list[tuple[str, ...]] = [()]
        seen = 0
        while waiting:
            folder = waiting.pop()
            entries = self._list(folder, MAX_ENTRIES - seen)
            seen += len(entries)
            yield from entries
            below = [entry.parts for entry in entries if entry.kind is EntryKind.FOLDER]
            if below and len(folder) >= MAX_DEPTH:
                raise MediumLimitError(f"{shown(below[0])} lies deeper than {MAX_DEPTH} folders; put the release at the top")
            waiting.extend(reversed(below))

    def open(self, parts: Sequence[str]) -> BinaryIO:
        """As `Medium`."""
        try:
            descriptor = open_file_beneath(self._root, tuple(parts))
        except OSError as error:
            raise self.trouble(error, parts) from error
        if os.fstat(descriptor).st_dev != self._device:
            os.close(descriptor)
            raise ProtocolError(f"{shown(parts)} is on another file system than the medium")
        return os.fdopen(descriptor, "rb", buffering=0)

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        """What an error of the system means, met at `parts`."""
        what = shown(parts) or "the medium"
        if not self._present():
            return MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
        if error.errno == errno.ENOENT:
            return NotFoundError(f"{what} is not on the medium")
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL}:
            return ProtocolError(f"{what}: {error.strerror} (links are not followed)")
        return MediumUnreadableError(f"cannot read {what}: {error.strerror or error}; copy the release onto another stick")

    def close(self) -> None:
        """As `Medium`."""
        if self._open:
            self._open = False
            os.close(self._root)

    def _list(self, folder: tuple[str, ...], most: int) -> list[Entry]:
        try:
            descriptor = open_folder_beneath(self._root, folder)
        except OSError as error:
            if folder and error.errno == errno.EACCES:
                return []  # `lost+found` of every ext4, or another's secrets: nothing that is meant for us
            raise self.trouble(error, folder) from error
        found: list[Entry] = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if len(found) >= most:
                        raise MediumLimitError(f"the medium holds more than {MAX_ENTRIES} files; put only releases on it")
                    found.append(self._entry((*folder, entry.name), entry))
        except OSError as error:
            raise self.trouble(error, folder) from error
        finally:
            os.close(descriptor)
        return sorted(found, key=lambda entry: entry.parts)

    def _entry(self, parts: tuple[str, ...], entry: os.DirEntry[str]) -> Entry:
        known = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(known.st_mode):
            return Entry(parts, EntryKind.FILE, known.st_size)
        if stat.S_ISDIR(known.st_mode) and known.st_dev == self._device:
            return Entry(parts, EntryKind.FOLDER)
        return Entry(parts, EntryKind.OTHER)
