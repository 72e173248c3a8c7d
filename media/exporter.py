"""Copies the reports that wait in `intake/outbox` onto a medium that can be written, and forgets each once it lies there.

1. `<time>-<gateway>.<form>` becomes `FIELDRELAY/<gateway>/<time>.<form>`. Other names are passed over.
2. A file leaves the outbox only after it was written, synced, and read back from the medium with the same bytes. A medium that is
   full, fails or is pulled out costs nothing: what it has not proved waits for the next one.
3. Nothing on the medium is followed that is a link, and nothing but our own files is written or replaced.
"""

import logging
import os
import re
from pathlib import Path
from typing import Final, Protocol

from media.intake import OUTBOX
from media.medium import shown
from media.recogniser import REPORTS
from update.durable import Disk
from update.errors import FieldrelayError, MediumFullError, ProtocolError, StoreError
from update.store.beneath import open_file_beneath, open_folder_beneath

_LOG = logging.getLogger(__name__)

MAX_REPORT_BYTES: Final = 64 << 20
_NAME: Final = re.compile(
    r"(?P<time>[0-9]{8}T[0-9]{6}Z[.0-9a-f]*)-(?P<gateway>[A-Za-z0-9][A-Za-z0-9._-]*)\.(?P<form>json|txt|html)"
)
_ANYBODY: Final = 0o777
"""File systems of sticks keep no permissions, and refuse that any be taken away."""


class Writable(Protocol):
    """A medium that can be written just now. Errors of every method: `MediumFullError`."""

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        """Replace a file, durably, in a folder that is made where it lacks."""
        ...

    def read_back(self, folder: tuple[str, ...], name: str, max_bytes: int) -> bytes:
        """What the medium itself holds, not what the system still remembers."""
        ...


class WritableFolder:
    """The tree below an open folder of a mount, which stays the caller's."""

    def __init__(self, descriptor: int, disk: Disk) -> None:
        self._root = descriptor
        self._disk = disk

    def write(self, folder: tuple[str, ...], name: str, data: bytes) -> None:
        """As `Writable`."""
        try:
            self._make(folder)
            inside = open_folder_beneath(self._root, folder)
            try:
                self._disk.write_file(Path(f"/proc/self/fd/{inside}") / name, data, mode=_ANYBODY)
            finally:
                os.close(inside)
        except (OSError, StoreError, ProtocolError) as error:
            raise _full((*folder, name), error) from error

    def read_back(self, folder: tuple[str, ...], name: str, max_bytes: int) -> bytes:
        """As `Writable`."""
        try:
            descriptor = open_file_beneath(self._root, (*folder, name))
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(max_bytes)
        except (OSError, ProtocolError) as error:
            raise _full((*folder, name), error) from error

    def _make(self, folder: tuple[str, ...]) -> None:
        """Each folder that lacks, durable in its own parent."""
        for count in range(len(folder)):
            parent = open_folder_beneath(self._root, folder[:count])
            try:
                os.mkdir(folder[count], dir_fd=parent)
                self._disk.sync_folder(Path(f"/proc/self/fd/{parent}"))
            except FileExistsError:
                continue
            finally:
                os.close(parent)


class Exporter:
    """Empties the outbox of one intake folder."""

    def __init__(self, root: Path) -> None:
        self._outbox = root / OUTBOX

    def waits(self) -> bool:
        """Whether there is anything to export: only then a medium need be made writable."""
        return bool(self._waiting())

    def export(self, writable: Writable) -> tuple[str, ...]:
        """Copy what waits, the oldest first; the paths on the medium.

        Errors: `MediumFullError`; what was proved before has left the outbox, the rest stays.
        """
        written = []
        for name, match in self._waiting():
            file = self._outbox / name
            data = _read(file)
            if data is None:
                continue
            folder, final = (REPORTS, match["gateway"]), f"{match['time']}.{match['form']}"
            writable.write(folder, final, data)
            back = writable.read_back(folder, final, len(data) + 1)
            if back != data:
                what = shown((*folder, final))
                raise MediumFullError(f"{what} was written and reads as other bytes; use another stick, the report waits for it")
            file.unlink(missing_ok=True)
            written.append("/".join((*folder, final)))
        return tuple(written)

    def _waiting(self) -> list[tuple[str, re.Match[str]]]:
        names = sorted(each.name for each in self._outbox.iterdir()) if self._outbox.is_dir() else []
        return [(name, match) for name in names if (match := _NAME.fullmatch(name))]


def _read(file: Path) -> bytes | None:
    """A report; None for what is gone or cannot be one."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        _LOG.warning("cannot read the report %s: %s", file, error.strerror)
        return None
    return data if len(data) <= MAX_REPORT_BYTES else None


def _full(parts: tuple[str, ...], error: OSError | FieldrelayError) -> MediumFullError:
    why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return MediumFullError(f"cannot write {shown(parts)} onto the medium: {why}; the report waits for another stick")
