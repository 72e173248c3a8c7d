"""One process on one state folder: the lock that says so ends with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from update.errors import BusyError, StateError, StoreError


@contextmanager
def alone(root: Path, lock: Path) -> Iterator[None]:
    """Hold the folder `root` by its file `lock`. Errors: `StateError` without the folder, `BusyError`, `StoreError`."""
    if not root.is_dir():
        raise StateError(f"{root} does not exist; `fieldrelay gateway init` makes it")
    held = _lock(root, lock)
    try:
        yield
    finally:
        os.close(held)


def _lock(root: Path, lock: Path) -> int:
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open {lock}: {error.strerror}; run as the user that owns {root}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise BusyError(f"another gateway runs on {root}; end it, or give this one its own state folder") from error
    return held
