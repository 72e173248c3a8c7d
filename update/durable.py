"""Durable writes: the only place that creates, syncs and renames files that matter.

The rules, from the semantics of POSIX file systems (fsync(2), rename(2)):

1. Data is on disk after fsync of the file, a name after fsync of its folder. Neither implies the other.
2. A whole file is replaced by: write a temporary file in the same folder, fsync it, rename it, fsync the folder.
   A reader finds the old or the new content, never a mixture.
3. A growing file is appended and fsynced; its reader must recognise a torn last record by itself (a checksum).
4. A new folder is durable after fsync of its parent.
5. A process may be killed while the machine runs on: the next process then sees names that are not on disk yet. What it
   finds and relies on it syncs once itself (`append`, `make_folder` and `remove` do; `sync_folder` is for the rest).

Every primitive announces itself to the `observe` callback *before* it acts. Tests record the operations and replay
every prefix of them with unsynced data lost, torn or reordered; crash tests raise from the callback.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from update.errors import NoSpaceError, StoreError

_TEMPORARY_SUFFIX = ".tmp"


class Kind(StrEnum):
    """What a primitive does."""

    CREATE = "create"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    RENAME = "rename"
    REMOVE = "remove"
    MAKE_FOLDER = "make-folder"
    SYNC_FOLDER = "sync-folder"


@dataclass(frozen=True, slots=True)
class Operation:
    """One primitive, as announced: `offset` and `data` for writes, `offset` as size for truncate, `target` for rename.

    `data` is the caller's buffer: an observer that keeps it must copy it.
    """

    kind: Kind
    path: Path
    offset: int = 0
    data: bytes | memoryview = b""
    target: Path | None = None


Observer = Callable[[Operation], None]


def _ignore(_operation: Operation) -> None:
    """Observe nothing."""


class Disk:
    """Durable operations on one machine's file systems.

    Errors: `NoSpaceError` for ENOSPC and EDQUOT, `StoreError` for any other failure of the system.
    """

    def __init__(self, observe: Observer = _ignore) -> None:
        self._observe = observe
        self._settled: set[Path] = set()  # names that this object has seen synced (rule 5)

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Replace the whole of `path` (rule 2). Parent folders must exist; a failure leaves the old content and no rest."""
        self._replace(path, data, mode)
        self._sync_folder(path.parent)

    def append(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Append one record and sync it (rule 3); a name that is new, or new to this object, is synced too (rule 5).

        After a crash the file may end in part of a record: its owner cuts that off (`open`, `truncate`) before it appends.
        """
        settled = path in self._settled and path.exists()
        with self.open(path, mode=mode) as file:
            file.write_at(file.size(), data)
            file.sync()
        if not settled:
            self._sync_folder(path.parent)
            self._settled.add(path)

    def write_files(self, folder: Path, files: Iterable[tuple[str, bytes]], *, mode: int = 0o644) -> None:
        """Replace several files (name, content) of one folder, each old or new after a crash; all are durable at the end."""
        for name, data in files:
            self._replace(folder / name, data, mode)
        self._sync_folder(folder)

    def publish(self, staged: Path, final: Path, *, along: Iterable[Path] = ()) -> None:
        """Move a completely written and synced file to its final name, durably, within one file system.

        The content must be synced already (`DurableFile.sync`): publishing a name never vouches for data. `along` are files
        beside `staged` that mean nothing without it: they are removed with it.
        """
        self._rename(staged, final)
        self._sync_folder(final.parent)
        for path in along:
            self._unlink(path)
        if staged.parent != final.parent:
            self._sync_folder(staged.parent)

    def show(self, staged: Path, final: Path) -> None:
        """Give a finished file the name under which another process looks for it; a power cut may take both away.

        Only for what is of no use after one: bytes on their way from one process to the next.
        """
        self._rename(staged, final)

    def make_folder(self, path: Path, *, mode: int = 0o755) -> None:
        """Make `path` and its missing parents, each durable in its own parent (rule 4)."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        found = missing[-1].parent if missing else path
        if found not in self._settled and os.access(found.parent, os.W_OK):  # else it was not made by this program
            self._sync_folder(found.parent)
        for folder in reversed(missing):
            self._observe(Operation(Kind.MAKE_FOLDER, folder))
            with _named(folder, "make the folder"):
                folder.mkdir(mode=mode, exist_ok=True)
            self._sync_folder(folder.parent)
        self._settled.update((found, *missing))

    def remove(self, path: Path) -> None:
        """Remove a file durably; one that is not there is no error, and is durably not there afterwards (rule 5)."""
        self._settled.discard(path)
        self._unlink(path)
        if path.parent.exists():
            self._sync_folder(path.parent)

    def open(self, path: Path, *, fresh: bool = False, mode: int = 0o644) -> "DurableFile":
        """Open for positioned reads and writes; `fresh` empties it. The name is not synced: publish or append does that."""
        if fresh or not path.exists():
            self._observe(Operation(Kind.CREATE, path))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if fresh else 0)
        with _named(path, "open"):
            file = DurableFile(path, os.open(path, flags, mode), self._observe)
        if fresh:
            file.restrict(mode)
        return file

    def open_device(self, path: Path) -> "DurableFile":
        """Open an existing slot (block device or file, symbolic links as in /dev/disk followed) for writing; never creates."""
        with _named(path, "open"):
            return DurableFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC), self._observe)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in `folder` durable: for files made with `open` that stay where they are."""
        self._sync_folder(folder)

    def _rename(self, source: Path, target: Path) -> None:
        self._observe(Operation(Kind.RENAME, source, target=target))
        with _named(target, "rename to"):
            source.replace(target)

    def _replace(self, path: Path, data: bytes, mode: int) -> None:
        temporary = path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")
        try:
            with self.open(temporary, fresh=True, mode=mode) as file:
                file.write_at(0, data)
                file.sync()
            self._rename(temporary, path)
        except StoreError:
            with suppress(StoreError):  # best effort: the next write of the same file empties it anyway
                self._unlink(temporary)
            raise

    def _unlink(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            self._observe(Operation(Kind.REMOVE, path))
            with _named(path, "remove"), suppress(FileNotFoundError):
                path.unlink()

    def _sync_folder(self, folder: Path) -> None:
        self._observe(Operation(Kind.SYNC_FOLDER, folder))
        with _named(folder, "sync the folder"):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class DurableFile:
    """An open file whose writes count only after `sync`."""

    def __init__(self, path: Path, descriptor: int, observe: Observer) -> None:
        self.path = path
        self._descriptor = descriptor
        self._observe = observe

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, for positioned reads and sendfile."""
        return self._descriptor

    def restrict(self, mode: int) -> None:
        """Take away every permission that `mode` lacks: a file left by an earlier run may have been more open."""
        present = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        if present & ~mode:
            with _named(self.path, "restrict"):
                os.fchmod(self._descriptor, present & mode)

    def size(self) -> int:
        """Size in bytes; of a block device its capacity."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset` (bytes)."""
        self._observe(Operation(Kind.WRITE, self.path, offset=offset, data=data))
        view = memoryview(data)
        with _named(self.path, "write"):
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written

    def read_at(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes at `offset`; fewer only at the end."""
        parts: list[bytes] = []
        with _named(self.path, "read"):
            while size > 0 and (part := os.pread(self._descriptor, size, offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def truncate(self, size: int) -> None:
        """Set the size; growing leaves a hole."""
        self._observe(Operation(Kind.TRUNCATE, self.path, offset=size))
        with _named(self.path, "truncate"):
            os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """Make the content durable."""
        self._observe(Operation(Kind.SYNC, self.path))
        with _named(self.path, "sync"):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close; idempotent. Closing promises nothing about the disk."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def _named(path: Path, attempt: str) -> Iterator[None]:
    """Translate `OSError` of one operation into the tree, naming the path."""
    try:
        yield
    except OSError as error:
        message = f"cannot {attempt} {path}: {error.strerror or error}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpaceError(f"{message}; free space on this disk and try again") from error
        raise StoreError(message) from error
