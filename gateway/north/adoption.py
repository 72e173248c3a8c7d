"""Whose signed URLs are served although no metadata lists them: those of proved bundles that open actions want.

1. Whoever has proved a bundle for an assigner tells it here (`adopt`) before a node hears of it; the bundle counts as wanted for
   `GRACE_S`, until there is an action.
2. From then on the open actions decide. The other form of what one wants (`fleet.unlisted`) counts as wanted, too.
3. After a start the stored bundles of open actions are proved again, so that nodes can go on with an assigner away. What cannot
   be proved now is told, and tried again after as long.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, Protocol

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.database.records import Release
from gateway.fleet.unlisted import Unlisted, unlisted_info
from gateway.north.vouched import Prove, readable_bodies
from update.bundle.verified import VerifiedBundle
from update.errors import FieldrelayError, StoreError
from update.store.store import Store
from update.trust.verified import TargetInfo

_LOG = logging.getLogger(__name__)

GRACE_S: Final = 60.0
SETTLE_S: Final = 2.0
"""Nodes of which each says something change much in a second."""
_SUFFIX = ".swu"


class Urls(Protocol):
    """Who serves signed URLs."""

    def adopt(self, info: TargetInfo, bundle: VerifiedBundle) -> None:
        """Take note of what a bundle names; called in threads."""
        ...

    def wanted(self, adopted: Collection[TargetInfo]) -> None:
        """Serve what these name, and forget what others named."""
        ...


class Adoption:
    """Used on one event loop. `clock` gives seconds that never go back."""

    def __init__(
        self,
        database: Database,
        store: Store,
        prove: Prove,
        urls: Urls,
        unlisted: Unlisted,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._prove = prove
        self._urls = urls
        self._unlisted = unlisted
        self._clock = clock
        self._adopted: set[TargetInfo] = set()
        self._expected_s: dict[TargetInfo, float] = {}
        self._failed_s: dict[TargetInfo, float] = {}
        self._ordered: frozenset[TargetInfo] = frozenset()
        self._changed = asyncio.Event()
        database.watch(self._changed.set)

    async def adopt(self, release: Release, bundle: VerifiedBundle, *, is_delta: bool) -> None:
        """A bundle was proved that somebody is about to want."""
        info = unlisted_info(release)
        self._unlisted.note(release.sha256, is_delta=is_delta)
        self._adopted.add(info)
        self._expected_s[info] = self._clock()  # before it is read: whoever shows meanwhile must not forget it
        await asyncio.to_thread(self._urls.adopt, info, bundle)
        self._show()

    def expect(self, release: Release) -> bool:
        """Somebody is about to want it again; False if it must be proved again before."""
        info = unlisted_info(release)
        if info not in self._adopted:
            return not release.path.endswith(_SUFFIX)
        self._expected_s[info] = self._clock()
        self._show()
        return True

    async def run(self) -> None:
        """Follow the open actions, for ever."""
        while True:
            self._changed.clear()
            try:
                await self.look()
            except StoreError as error:
                _LOG.warning("which signed URLs are wanted cannot be read: %s (%s)", error, error.code)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._changed.wait()
            await asyncio.sleep(SETTLE_S)

    async def look(self) -> None:
        """Serve what open actions want now. Errors: `StoreError` of the database."""
        async with self._database.reading() as transaction:
            wanted = await actions.wanted_unlisted(transaction)
        forms = {form for each in wanted for form in self._unlisted.forms(each) if form.path.endswith(_SUFFIX)}
        self._ordered = frozenset(map(unlisted_info, forms))
        self._failed_s = {info: since_s for info, since_s in self._failed_s.items() if self._clock() - since_s < GRACE_S}
        for release in forms:
            if unlisted_info(release) not in self._adopted and unlisted_info(release) not in self._failed_s:
                await self._adopt_stored(release)
        self._show()

    async def _adopt_stored(self, release: Release) -> None:
        info = unlisted_info(release)
        self._adopted.add(info)
        try:
            is_delta = await asyncio.to_thread(self._prove_stored, info)
        except FieldrelayError as error:
            _LOG.info("signed URLs of %s are not served: %s (%s)", release.path, error, error.code)
            self._adopted.discard(info)
            self._failed_s[info] = self._clock()
            return
        except BaseException:  # who looks goes away in the middle: it was not read
            self._adopted.discard(info)
            raise
        self._unlisted.note(release.sha256, is_delta=is_delta)

    def _prove_stored(self, info: TargetInfo) -> bool:
        bundle = self._prove(self._store.open_verified(info).file, info)
        if not isinstance(bundle, VerifiedBundle):
            return False
        self._urls.adopt(info, bundle)
        return bool(readable_bodies(bundle))

    def _show(self) -> None:
        """Tell who serves, and forget what nobody wants."""
        now_s = self._clock()
        self._expected_s = {info: since_s for info, since_s in self._expected_s.items() if now_s - since_s < GRACE_S}
        self._adopted &= self._ordered | self._expected_s.keys()
        self._urls.wanted(frozenset(self._adopted))
