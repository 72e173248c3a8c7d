"""Content on its way in: a partial file that a later process continues where this one is known to have come.

A file's size proves nothing after a power cut: the length may be on disk and the data not. So `sync` first syncs the data
and then records how many bytes that were; opening again cuts the file back to the record. Whatever lies below the record
is on disk, and what is overwritten is taken out of the record beforehand. A lost or damaged record costs a download,
never correctness: `verify_target` reads everything before anything is published.
"""

from pathlib import Path
from typing import Self

from update.durable import Disk, DurableFile
from update.errors import CorruptError
from update.store.journal import Journal

_SYNCED = "synced_bytes"


class Staged:
    """One partial file, open for positioned writes; made by `Store.stage`. Close it before verifying and publishing."""

    def __init__(self, disk: Disk, path: Path, record: Path, *, length: int) -> None:
        self.path = path
        self.length = length
        self._disk = disk
        self._record = Journal(disk, record)
        self._known = _recorded(self._record)
        self._file: DurableFile = disk.open(path)
        size = self._file.size()
        self._retract(min(size, length))
        if size > self._known:
            self._file.truncate(self._known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def size(self) -> int:
        """Bytes that are there; directly after opening, bytes that need not be fetched again."""
        return self._file.size()

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write at `offset` (bytes)."""
        self._retract(offset)
        self._file.write_at(offset, data)

    def truncate(self, size: int) -> None:
        """Cut back to `size` bytes, e.g. 0 to begin again."""
        self._retract(size)
        self._file.truncate(size)

    def sync(self) -> None:
        """Make what was written durable, and record how much it is."""
        self._file.sync()
        size = self._file.size()
        if size != self._known:
            self._record.write({_SYNCED: size})
            self._known = size

    def discard(self) -> None:
        """Forget the content: it turned out to be wrong, or nobody wants it any more."""
        self.close()
        self._record.clear()
        self._disk.remove(self.path)

    def close(self) -> None:
        """Close; idempotent. Bytes after the last `sync` may be fetched again."""
        self._file.close()

    def _retract(self, size: int) -> None:
        if size >= self._known:
            return
        if size:
            self._record.write({_SYNCED: size})
        else:
            self._record.clear()
        self._known = size


def _recorded(record: Journal) -> int:
    try:
        body = record.read() or {}
    except CorruptError:
        return 0
    known = body.get(_SYNCED, 0)
    return known if isinstance(known, int) and known > 0 else 0
