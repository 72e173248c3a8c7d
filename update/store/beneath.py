"""Opening files below an open folder so that nothing that lies there can lead outside.

Every component is opened on its own, relative to the folder above it and never through a symbolic link (`openat` with
O_NOFOLLOW), so that neither a link nor a rename during the walk escapes. Only regular files and folders are opened: a device or
a pipe on a hostile medium is refused before the first byte (O_NONBLOCK keeps a pipe from blocking).
"""

import os
import stat
from collections.abc import Sequence

from update.errors import ProtocolError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_file_beneath(folder: int, names: Sequence[str]) -> int:
    """A descriptor of the regular file at `names` below the open `folder`; the caller closes it, `folder` stays open.

    Errors: `OSError` as the system says it, `ProtocolError` for what is no regular file or no name of one.
    """
    _check(names)
    parent = open_folder_beneath(folder, names[:-1])
    try:
        descriptor = os.open(names[-1], _FILE, dir_fd=parent)
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ProtocolError(f"{'/'.join(names)[:200]!r} is not a regular file")
    return descriptor


def open_folder_beneath(folder: int, names: Sequence[str]) -> int:
    """A descriptor of the folder at `names` below `folder`, which stays open; the caller closes it.

    Errors: `OSError`, `ProtocolError` for what is no name.
    """
    _check(names)
    descriptor = os.open(".", _FOLDER, dir_fd=folder)
    for name in names:
        above = descriptor
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _check(names: Sequence[str]) -> None:
    if any(name in {"", ".", ".."} or "/" in name or "\0" in name for name in names):
        raise ProtocolError(f"{'/'.join(names)[:200]!r} is no path below a folder")
