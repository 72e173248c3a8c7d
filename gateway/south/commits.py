"""When what was written into a sparse file is made durable: in batches, beside the line, which a slow disk stops only far behind.

A line that nobody reads fills the buffers of the kernel, and what is in them is lost with a gateway that is killed; what was
written is not, durable or not. So a fetch goes on while a batch is synced. Only a power cut takes what is not durable:
`MOST_UNCOMMITTED_BYTES`, what came during the last sync, and what each request has in its hands, at most.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from gateway.south.sparse import SparseFile
from update.errors import StoreError

_log = logging.getLogger(__name__)

COMMIT_EVERY_BYTES: Final = 1 << 20
MOST_UNCOMMITTED_BYTES: Final = 8 << 20

Begin = Callable[[Coroutine[object, object, None]], "asyncio.Task[None]"]
"""Begins work that goes on when who waits for it is cancelled."""


class Commits:
    """Those of one file."""

    def __init__(self, sparse: SparseFile, begin: Begin) -> None:
        self._sparse = sparse
        self._begin = begin
        self._bytes = 0
        self._alone = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None

    def written(self, size_bytes: int) -> None:
        """So much is in the file, and not yet durable."""
        self._bytes += size_bytes

    async def keep_up(self) -> None:
        """With more to come: have a batch made durable once it is one, and wait for it only where the disk is far behind."""
        if self._bytes >= MOST_UNCOMMITTED_BYTES:
            await self.or_go_on()
        elif self._bytes >= COMMIT_EVERY_BYTES and (self._beside is None or self._beside.done()):
            self._beside = self._begin(self._commit_or_go_on())

    async def now(self) -> None:
        """Make everything durable. Errors: `StoreError`."""
        await asyncio.shield(self._begin(self._commit()))

    async def or_go_on(self) -> None:
        """The same; a disk that refuses is noted in the log."""
        await asyncio.shield(self._begin(self._commit_or_go_on()))

    async def _commit_or_go_on(self) -> None:
        try:
            await self._commit()
        except StoreError as error:  # what is in the file is served all the same
            _log.error("relay: what has come of %s is not durable: %s (%s)", self._sparse.path.name, error, error.code)

    async def _commit(self) -> None:
        async with self._alone:
            self._bytes = 0
            await asyncio.to_thread(self._sparse.commit)
