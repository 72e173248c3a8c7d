"""A store with its relays, over upstreams in memory: what stands behind a gateway's content listener."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.south.open_files import Lease
from gateway.south.origins import RangeSource
from gateway.south.relays import Relays
from gateway.south.seeds import OldFile, old_files
from gateway.south.unstored import Unstored
from update.chunks.ranges import Range
from update.digest import Digest
from update.durable import Disk, Observer, Operation
from update.errors import NoSpaceError, StoreError
from update.store.store import Store
from update.trust.verified import TargetInfo, VerifiedTarget


class RelaySite:
    """`sources` per repository; `fail` is told of every operation of the disk and may raise; `full`: the quota is used."""

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, Sequence[RangeSource]],
        *,
        hold_s: float = 20.0,
        memory_bytes: int = 32 << 20,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.fail: list[Observer] = list(observers)
        self.full = False
        self.disk = Disk(self._observe)
        self.store = Store(self.disk, folder / "store")
        self.sources = dict(sources)
        self.grown: list[tuple[Digest, int]] = []
        self.published: list[VerifiedTarget] = []
        self.looked_up: list[TargetInfo] = []
        self.looks = 0
        self.relays = Relays(
            self.store.layout.sparse,
            self.disk,
            lambda info: self.sources.get(info.repository, ()),
            publish=self._publish,
            find=self.find,
            grow=self._grow,
            look=self._look,
            hold_s=hold_s,
            unstored=Unstored(memory_bytes=memory_bytes),
            full_pause_s=0.0,
            gather_s=0.0,
        )

    @property
    def sparse_files(self) -> list[str]:
        """Names in the relays' folder."""
        return sorted(path.name for path in self.store.layout.sparse.iterdir())

    async def read(self, info: TargetInfo, span: Range) -> bytes | None:
        """What a reader of the relay gets; None when the store has it."""
        lease = await self.relays.lend(info, [span])
        return None if lease is None else take(lease, span)

    def find(self, info: TargetInfo) -> Path | None:
        """As the gateway looks into its store."""
        self.looked_up.append(info)
        with suppress(StoreError):
            return self.store.open_verified(info).file
        return None

    def keep(self, info: TargetInfo, content: bytes) -> None:
        """Put complete content into the store."""
        with self.store.stage(info) as staged:
            staged.write_at(0, content)
            staged.sync()
        self.store.publish(VerifiedTarget(info, staged.path))

    async def _grow(self, info: TargetInfo, needed_bytes: int) -> None:
        if self.full:
            raise NoSpaceError("the quota is used")
        self.grown.append((info.sha256, needed_bytes))

    def _look(self) -> tuple[OldFile, ...]:
        self.looks += 1
        return old_files(self.store.layout)

    def _publish(self, verified: VerifiedTarget) -> Path:
        self.published.append(verified)
        return self.store.publish(verified)

    def _observe(self, operation: Operation) -> None:
        for refuse in self.fail:
            refuse(operation)


def take(lease: Lease, span: Range) -> bytes:
    """Read and give back."""
    try:
        return os.pread(lease.descriptor, span.length, span.start)
    finally:
        lease.release()
