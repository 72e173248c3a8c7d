"""mount(2) for media, by ctypes: what may be mounted, with which flags, in a mount namespace that nobody else sees.

Everything is mounted read-only, and nothing of it acts: no set-uid, no device nodes, no programs, no symbolic links (Linux 5.10),
no access times. ext4 is mounted with `noload`: replaying the journal would write. Only file systems of the list below, each by
its name: the kernel never guesses.

For reports the file system is made writable for a moment (`writable`), through a second mount of only the folder of reports: the
mount that has been handed over stays read-only all the while (MS_RDONLY of the mount, mount(2)). Not for ext4: without its
journal it is not written.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Final

from update.errors import MediumFullError, MediumRefusedError, MediumUnreadableError

REPORTS: Final = "FIELDRELAY"
"""The folder of our own reports on a medium, the only one that is ever written."""
_CLONE_NEWNS: Final = 0x0002_0000
_MNT_DETACH: Final = 2
_FAT: Final = "uid={uid},gid={gid},fmask=0113,dmask=0002"
_OPTIONS: Final = {
    "vfat": f"{_FAT},utf8",
    "exfat": _FAT,
    "ext4": "noload",
}
_WRITABLE: Final = frozenset({"vfat", "exfat"})


class Flag(IntFlag):
    """Flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOSYMFOLLOW = 256
    NOATIME = 1024
    BIND = 4096
    REC = 16384
    PRIVATE = 1 << 18


HARMLESS: Final = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC | Flag.NOSYMFOLLOW | Flag.NOATIME


class Kernel:
    """The system calls. Errors of all: `OSError`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)

    def separate(self) -> None:
        """Leave the mount namespace of everybody else, for this thread and those it starts from now on."""
        self._check(self._library.unshare(_CLONE_NEWNS), "unshare")
        self.mount("none", Path("/"), "", Flag.REC | Flag.PRIVATE)

    def mount(self, source: str, at: Path, kind: str, flags: Flag, options: str = "") -> None:
        """The system call of that name."""
        given = (os.fsencode(source), os.fsencode(at), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
        self._check(self._library.mount(*given), source)

    def detach(self, at: Path) -> None:
        """As umount2(2) says, with MNT_DETACH: what is open stays so, nothing new is."""
        self._check(self._library.umount2(os.fsencode(at), _MNT_DETACH), str(at))

    def _check(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whoever reads: to him the files of vfat and exfat belong, and to our own group, which makes the folder of reports."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mounted medium at `at`, until `release`."""

    kernel: Kernel
    at: Path
    filesystem: str

    def root(self) -> int:
        """A descriptor of its top folder; the caller closes it."""
        return os.open(self.at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def writable(self) -> Iterator[int]:
        """A descriptor of the folder of reports, writable until the end; all else stays read-only. Errors: `MediumFullError`."""
        if self.filesystem not in _WRITABLE:
            raise MediumFullError(f"reports are written onto {' and '.join(sorted(_WRITABLE))} only, this is {self.filesystem}")
        beside = self.at.with_name(f"{self.at.name}.reports")
        try:
            descriptor = self._open_reports(beside)
        except OSError as error:
            self._shut(beside)
            raise MediumFullError(
                f"the medium cannot be written: {error.strerror}; the report waits for another stick"
            ) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            self._shut(beside)

    def release(self) -> None:
        """Let go; idempotent. What is still open is the business of whoever holds it."""
        with suppress(OSError):
            self.kernel.detach(self.at)
        with suppress(OSError):
            self.at.rmdir()

    def _open_reports(self, beside: Path) -> int:
        beside.mkdir(mode=0o700, exist_ok=True)
        self.kernel.mount(str(self.at), beside, "", Flag.BIND)
        self.kernel.mount("none", beside, "", Flag.REMOUNT | HARMLESS)
        top = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileExistsError):
                os.mkdir(REPORTS, 0o755, dir_fd=top)
            inside = os.open(REPORTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        finally:
            os.close(top)
        try:
            self.kernel.mount(f"/proc/self/fd/{inside}", beside, "", Flag.BIND)
            return os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(inside)

    def _shut(self, beside: Path) -> None:
        """Away with what is above, then read-only again as a whole; the system writes out what it still holds."""
        with suppress(OSError):
            self.kernel.detach(beside)  # the folder of reports
        with suppress(OSError):
            self.kernel.mount("none", beside, "", Flag.REMOUNT | Flag.RDONLY | HARMLESS)
        with suppress(OSError):
            self.kernel.detach(beside)
        with suppress(OSError):
            beside.rmdir()


def mount(kernel: Kernel, node: Path, filesystem: str, at: Path, owner: Owner) -> Mounted:
    """Mount `node` at the new folder `at`.

    Errors: `MediumRefusedError` for what may not be mounted, or not by this kernel; `MediumUnreadableError`.
    """
    options = _OPTIONS.get(filesystem)
    if options is None:
        raise MediumRefusedError(
            f"{filesystem or 'what is not known'} is not mounted here; format the stick as vfat, exfat or ext4"
        )
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        kernel.mount(str(node), at, filesystem, Flag.RDONLY | HARMLESS, options.format(uid=owner.uid, gid=os.getegid()))
    except OSError as error:
        at.rmdir()
        if error.errno == errno.ENODEV:
            raise MediumRefusedError(
                f"this kernel knows no {filesystem}; set [media] reader to own, or load its module"
            ) from error
        raise MediumUnreadableError(f"cannot mount {node} as {filesystem}: {error.strerror}; use another stick") from error
    return Mounted(kernel, at, filesystem)
