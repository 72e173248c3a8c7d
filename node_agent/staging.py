"""The bundle that is on its way in: one file in the state folder, continued after any interruption, removed at the end.

Only one bundle is staged at a time; whatever another one left behind is removed. A file is named by its SHA-256, and how
much of it is known to be on the disk is `update.store.staging`'s record: nothing here is believed before it was verified.
"""

import shutil
from pathlib import Path

from update.digest import Digest, digest_file
from update.durable import Disk
from update.errors import NoSpaceError, StoreError
from update.store.staging import Staged

_BLOCK_BYTES = 1 << 20
_KEEP_FREE_BYTES = 4 << 20


class Staging:
    """One folder. Errors of every method: `StoreError` and its leaves."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def path(self, sha256: Digest) -> Path:
        """Where a bundle stands while it is downloaded, verified and written."""
        return self._folder / f"{sha256}.swu"

    def open(self, sha256: Digest, length: int) -> Staged:
        """Continue or begin a bundle of `length` bytes; `NoSpaceError` before anything is fetched that would not fit."""
        self._disk.make_folder(self._folder, mode=0o700)
        self._keep_only(sha256)
        staged = Staged(self._disk, self.path(sha256), self._folder / f"{sha256}.json", length=length)
        needed, free = length - staged.size(), shutil.disk_usage(self._folder).free
        if needed and needed + _KEEP_FREE_BYTES > free:
            staged.close()
            raise NoSpaceError(
                f"the bundle needs {needed} more bytes in {self._folder}, {free} are free; make room and try again"
            )
        return staged

    def clear(self) -> None:
        """Remove everything."""
        self._keep_only(None)

    def _keep_only(self, sha256: Digest | None) -> None:
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if sha256 is None or not path.name.startswith(sha256):
                self._disk.remove(path)


def digest_bundle(file: Path) -> tuple[Digest, int]:
    """SHA-256 and length in bytes; `StoreError` for what cannot be read."""
    try:
        return digest_file(file)
    except OSError as error:
        raise StoreError(f"cannot read the bundle {file}: {error.strerror or error}") from error


def copy_bundle(file: Path, staged: Staged) -> None:
    """Append what `staged` still lacks of `file`, and make it durable; verifying the copy is the caller's."""
    try:
        with file.open("rb") as source:
            offset = staged.size()
            source.seek(offset)
            while offset < staged.length and (block := source.read(min(_BLOCK_BYTES, staged.length - offset))):
                staged.write_at(offset, block)
                offset += len(block)
    except OSError as error:
        raise StoreError(f"cannot read the bundle {file}: {error.strerror or error}") from error
    staged.sync()
