"""The bundle of a job, obtained and proved before any node hears of it; once, for however many jobs name it.

wfx knows an artifact by its address only. So it is fetched once for each address and content (`ETag`, or the time of its last
change), hashed, and known by its SHA-256 from then on: whose word it goes by, `north.vouched` says. Where the server says
nothing that changes with the content, it is fetched for every wish.
"""

import asyncio
from dataclasses import replace
from typing import Final

from gateway.north.vouched import Obtained, Vouched
from gateway.north.wfx.client import Seen, WfxClient
from gateway.north.wfx.meaning import Wanted
from gateway.single_flight import SingleFlight
from update.digest import digest_file, digest_of
from update.errors import BundleError, LimitError, TrustError, UnreachableError
from update.store.staging import Staged
from update.trust.verified import TargetInfo, verify_target

MOST_KNOWN: Final = 1000
"""Addresses whose content is remembered; the others are fetched for the next wish."""
_Key = tuple[str, Seen]


class Obtain:
    """Obtains the bundles of one server; `max_bytes` is the longest that is fetched."""

    def __init__(self, client: WfxClient, vouched: Vouched, *, max_bytes: int) -> None:
        self._client = client
        self._vouched = vouched
        self._max_bytes = max_bytes
        self._flights: SingleFlight[_Key, Obtained] = SingleFlight()
        self._known: dict[_Key, Obtained] = {}

    async def bundle(self, client: str, wanted: Wanted) -> Obtained:
        """Have it. Errors: `TrustError`, `BundleError` for what is refused for good; `WireError`, `StoreError` for now."""
        seen = await self._client.look(client, wanted.uri)
        if seen.length > self._max_bytes:
            raise LimitError(f"{wanted.uri} has {seen.length} bytes, at most {self._max_bytes} are fetched (max_bundle_bytes)")
        key = (wanted.uri, seen)
        known = self._known.get(key) if seen.validator else None
        obtained = await self._still(known)
        if obtained is None:
            obtained = await self._flights.share(key, lambda: self._obtain(client, wanted, seen))
            self._note(key, obtained)
        release = obtained.release
        return replace(obtained, release=replace(release, version=release.version or wanted.version))

    async def close(self) -> None:
        """End what is under way; what came stays for the next time."""
        await self._flights.close()

    def _note(self, key: _Key, obtained: Obtained) -> None:
        self._known[key] = obtained
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    async def _still(self, known: Obtained | None) -> Obtained | None:
        """What was fetched before, as it is known now: repositories may have come to list it, or it may be gone."""
        if known is None:
            return None
        release = known.release
        if (found := self._vouched.listed(release.sha256, release.length)) is not None:
            return found[1]
        return await self._vouched.kept(self._vouched.info(release.path, release.sha256, release.length))

    async def _obtain(self, client: str, wanted: Wanted, seen: Seen) -> Obtained:
        room = self._vouched.room
        arriving = self._vouched.info(wanted.name, digest_of(f"{wanted.uri} {seen}".encode()), seen.length)
        await room.admit(arriving)
        with await asyncio.to_thread(room.store.stage, arriving) as staged:
            if not seen.validator:
                staged.truncate(0)  # what is there may be of other content
            resumed = staged.size() > 0
            await self._client.download(client, wanted.uri, staged, length=seen.length)
        try:
            return await self._name(wanted, staged)
        except (TrustError, BundleError) as error:
            if resumed:
                raise UnreachableError(f"{wanted.uri} changed while it was fetched; it is fetched anew") from error
            raise
        finally:
            await asyncio.to_thread(staged.discard)  # it was staged under a name that means nothing once it is here

    async def _name(self, wanted: Wanted, staged: Staged) -> Obtained:
        """Know what has come by its content."""
        sha256, length = await asyncio.to_thread(digest_file, staged.path)
        if (found := self._vouched.listed(sha256, length)) is not None:
            await asyncio.to_thread(self._keep_listed, found[0], staged)
            return found[1]
        info = self._vouched.info(wanted.name, sha256, length)
        kept = await self._vouched.kept(info)
        return await self._vouched.keep(info, staged) if kept is None else kept

    def _keep_listed(self, info: TargetInfo, staged: Staged) -> None:
        """What is here need not be mirrored."""
        if self._vouched.room.store.find(info) is None:
            self._vouched.room.store.publish(verify_target(info, staged.path))
