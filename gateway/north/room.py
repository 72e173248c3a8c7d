"""How much content may be kept: a quota of bytes, and bytes of the disk that stay free in any case.

What would not fit is refused before it is fetched, by name; nothing that is kept is touched.
"""

from contextlib import suppress

from update.errors import NoSpaceError
from update.store.store import Store
from update.trust.verified import TargetInfo

_BLOCK_BYTES = 512  # st_blocks, stat(2)


class Room:
    """The room in one store. `quota_bytes` 0: as much as fits beside `reserve_bytes`."""

    def __init__(self, store: Store, *, quota_bytes: int, reserve_bytes: int) -> None:
        self.store = store
        self.quota_bytes = quota_bytes
        self._reserve_bytes = reserve_bytes

    def used_bytes(self) -> int:
        """What complete content and partly filled files really take; walks the store."""
        partial = 0
        for file in self.store.layout.sparse.iterdir():
            with suppress(FileNotFoundError):  # published a moment ago, and then counted below
                partial += file.stat().st_blocks * _BLOCK_BYTES
        return partial + sum(held.size_bytes for held in self.store.held())

    def free_bytes(self) -> int:
        """What the disk has left, the reserve included."""
        return self.store.free_bytes()

    def admit(self, info: TargetInfo) -> None:
        """Refuse a target that there is no room for: `NoSpaceError`."""
        free = self.free_bytes() - self._reserve_bytes
        if info.length > free:
            raise NoSpaceError(
                f"{info.path} needs {info.length} bytes; {max(0, free)} are free beside the reserve of {self._reserve_bytes} "
                "(store.reserve_bytes): enlarge the disk or remove something"
            )
        if self.quota_bytes and self.used_bytes() + info.length > self.quota_bytes:
            raise NoSpaceError(
                f"{info.path} needs {info.length} bytes; {self.used_bytes()} of the quota of {self.quota_bytes} are used "
                "(store.quota_bytes): raise it, or mirror less (repository.hardware)"
            )
