"""Open descriptors of complete content, by digest: opened once, shared, closed when no response uses them.

Content never changes under its digest, so a descriptor stays right as long as it is open. Still it is given out only for
`RECHECK_S`; then the store is asked again, which notes the use and notices what was damaged or removed meanwhile. The
least recently used one is closed first; one in use is closed when its last response ends.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from update.digest import Digest

RECHECK_S = 60.0


@dataclass(slots=True)
class _Opened:
    descriptor: int
    asked_s: float
    users: int = 0
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A descriptor to read from; `release` once done, more often does no harm."""

    descriptor: int
    release: Callable[[], None]


class OpenFiles:
    """At most `limit` idle descriptors stay open. `clock` gives seconds that never go back."""

    def __init__(self, limit: int = 256, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._opened: OrderedDict[Digest, _Opened] = OrderedDict()

    def borrow(self, digest: Digest) -> Lease | None:
        """The descriptor of this content, if it is open and the store was asked lately."""
        opened = self._opened.get(digest)
        if opened is None or self._clock() - opened.asked_s > RECHECK_S:
            return None
        return self._lend(digest, opened)

    def peek(self, digest: Digest) -> int | None:
        """Like `borrow`, for who is done with the descriptor before anything else runs."""
        opened = self._opened.get(digest)
        if opened is None or self._clock() - opened.asked_s > RECHECK_S:
            return None
        self._opened.move_to_end(digest)
        return opened.descriptor

    def open(self, digest: Digest, path: Path) -> Lease:
        """Open `path`, whose content is `digest`, and lend it; `OSError` when it cannot be opened."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if before := self._opened.pop(digest, None):
            self._retire(before)
        opened = self._opened[digest] = _Opened(descriptor, self._clock())
        lease = self._lend(digest, opened)
        while len(self._opened) > self._limit:
            self._retire(self._opened.popitem(last=False)[1])
        return lease

    def forget(self, digest: Digest) -> None:
        """Let go of content that was removed: its bytes are free only when nobody has it open."""
        if opened := self._opened.pop(digest, None):
            self._retire(opened)

    def close(self) -> None:
        """Close everything that is idle; the rest closes with its last response."""
        while self._opened:
            self._retire(self._opened.popitem()[1])

    def _lend(self, digest: Digest, opened: _Opened) -> Lease:
        self._opened.move_to_end(digest)
        opened.users += 1
        return Lease(opened.descriptor, once(lambda: self._release(opened)))

    def _retire(self, opened: _Opened) -> None:
        opened.retired = True
        if not opened.users:
            os.close(opened.descriptor)

    def _release(self, opened: _Opened) -> None:
        opened.users -= 1
        if opened.retired and not opened.users:
            os.close(opened.descriptor)


def duplicate(descriptor: int) -> Lease:
    """A descriptor of its own on the same open file: it stays right whatever becomes of the first one."""
    copy = os.dup(descriptor)
    return Lease(copy, once(lambda: os.close(copy)))


def once(action: Callable[[], None]) -> Callable[[], None]:
    """A function that acts on its first call only."""
    pending = [action]
    return lambda: pending.pop()() if pending else None
