"""Open descriptors of immutable content, by digest: opened once, shared, closed when no response uses them.

Content never changes under its digest, so a descriptor stays right as long as it is open. The least recently used one
is closed first; one in use is closed when its last response ends.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from update.digest import Digest


@dataclass(slots=True)
class _Opened:
    descriptor: int
    size: int
    users: int = 0
    evicted: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A descriptor to read `size` bytes from; `release` once done."""

    descriptor: int
    size: int
    release: Callable[[], None]


class OpenFiles:
    """At most `limit` idle descriptors stay open."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._opened: OrderedDict[Digest, _Opened] = OrderedDict()

    def lease(self, digest: Digest, path: Path) -> Lease:
        """Borrow the descriptor of `path`, whose content is `digest`. `OSError` when it cannot be opened."""
        opened = self._opened.get(digest)
        if opened is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            opened = self._opened[digest] = _Opened(descriptor, os.fstat(descriptor).st_size)
        self._opened.move_to_end(digest)
        opened.users += 1
        self._evict()
        return Lease(opened.descriptor, opened.size, _once(lambda: self._release(opened)))

    def forget(self, digest: Digest) -> None:
        """Close the descriptor of content that was found damaged or removed."""
        if opened := self._opened.pop(digest, None):
            self._retire(opened)

    def close(self) -> None:
        """Close everything that is idle; the rest closes with its last response."""
        while self._opened:
            self._retire(self._opened.popitem()[1])

    def _evict(self) -> None:
        while len(self._opened) > self._limit:
            self._retire(self._opened.popitem(last=False)[1])

    def _retire(self, opened: _Opened) -> None:
        opened.evicted = True
        if not opened.users:
            os.close(opened.descriptor)

    def _release(self, opened: _Opened) -> None:
        opened.users -= 1
        if opened.evicted and not opened.users:
            os.close(opened.descriptor)


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """A function that acts on its first call only."""
    pending = [action]
    return lambda: pending.pop()() if pending else None
