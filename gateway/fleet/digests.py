"""SHA-1 and MD5 of bundles, which stock clients compare after their download; computed once for each content.

They protect nothing: what is offered was verified by SHA-256 and its signatures. A wrong one makes a client refuse what it has
already written (measured with swupdate 2022.12), so they are computed from the verified file itself and kept.
"""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from gateway.database.engine import Database
from gateway.database.queries import digests
from gateway.database.records import Digests, Release
from update.digest import Digest
from update.errors import CorruptError, NotStoredError

_BLOCK_BYTES = 1 << 20


class ContentDigests:
    """Computes what is not kept yet; `find` gives the verified file of a release, and may take its time."""

    def __init__(self, database: Database, find: Callable[[Release], Path | None]) -> None:
        self._database = database
        self._find = find
        self._busy = asyncio.Lock()

    async def of(self, release: Release) -> Digests:
        """The digests of one bundle. Errors: `NotStoredError`, `CorruptError`."""
        if (known := await self._kept(release.sha256)) is not None:
            return known
        async with self._busy:  # one file at a time is read: it is I/O, and two cores have better things to do
            if (known := await self._kept(release.sha256)) is not None:
                return known
            computed = await asyncio.to_thread(self._compute, release)
            async with self._database.writing() as transaction:
                await digests.add(transaction, computed)
            return computed

    async def _kept(self, sha256: Digest) -> Digests | None:
        async with self._database.reading() as transaction:
            return await digests.find(transaction, sha256)

    def _compute(self, release: Release) -> Digests:
        path = self._find(release)
        if path is None:
            raise NotStoredError(f"{release.path} is not at hand; mirror its repository again")
        sums = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                for each in sums:
                    each.update(block)
        if sums[0].hexdigest() != release.sha256:
            raise CorruptError(f"{path} is no longer {release.path}; it is fetched again")
        return Digests(release.sha256, sums[1].hexdigest(), sums[2].hexdigest())
