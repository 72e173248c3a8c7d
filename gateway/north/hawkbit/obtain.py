"""The bundle of a deployment, obtained and proved before any node hears of it; once, for however many targets it is meant.

1. A repository whose verified metadata lists the same SHA-256 and length knows it: its provenance is `tuf`, and it is mirrored
   like everything there.
2. Otherwise it is fetched once, compared with its SHA-256, proved by its own signature against the authorities of the one
   repository that is configured for this server, and kept among that repository's content: its provenance is `cms`.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.database.records import Release
from gateway.fleet.nodes import release_of
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.meaning import Wanted
from gateway.north.room import Room
from gateway.single_flight import SingleFlight
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.digest import Digest
from update.errors import BundleError, LengthOrHashError, StoreError, TrustError
from update.trust.verified import Provenance, TargetCustom, TargetInfo, verify_target

Prove = Callable[[Path, TargetInfo], VerifiedBundle | VerifiedRaucBundle]
"""Proves a bundle by its own signature, against the authorities of the target's repository. Errors: trust and bundle ones."""
Listed = Callable[[], Iterable[TargetInfo]]
"""Everything that the repositories list now."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """A bundle that may be offered: `hardware` are the identifiers that it is for, where that is known."""

    release: Release
    hardware: tuple[str, ...] = ()


class Obtain:
    """Obtains the bundles of one server. `repository` is whose authorities prove what no metadata lists."""

    def __init__(self, client: HawkbitClient, room: Room, *, repository: str, listed: Listed, prove: Prove) -> None:
        self._client = client
        self._room = room
        self._repository = repository
        self._listed = listed
        self._prove = prove
        self._flights: SingleFlight[Digest, Obtained] = SingleFlight()
        self._proved: dict[Digest, Obtained] = {}

    async def bundle(self, controller: str, wanted: Wanted) -> Obtained:
        """Have it. Errors: `TrustError`, `BundleError` for what is refused for good; `WireError`, `StoreError` for now."""
        for info in self._listed():
            if (info.sha256, info.length) == (wanted.sha256, wanted.length):
                return Obtained(release_of(info), info.custom.hw_ids)
        if (known := self._proved.get(wanted.sha256)) is not None and self._is_stored(wanted):
            return known
        return await self._flights.share(wanted.sha256, lambda: self._obtain(controller, wanted))

    async def close(self) -> None:
        """End what is under way; what came stays for the next time."""
        await self._flights.close()

    def _is_stored(self, wanted: Wanted) -> bool:
        return self._room.store.find(self._info(wanted)) is not None

    def _info(self, wanted: Wanted) -> TargetInfo:
        custom = TargetCustom(version=wanted.version)
        return TargetInfo(self._repository, wanted.name, wanted.length, wanted.sha256, custom, "")

    async def _obtain(self, controller: str, wanted: Wanted) -> Obtained:
        info = self._info(wanted)
        file = await asyncio.to_thread(self._stored, info)
        if file is None:
            await self._room.admit(info)
            await self._fetch(controller, wanted, info)
        else:
            await asyncio.to_thread(self._prove, file, info)
        release = Release(info.repository, info.path, info.sha256, info.length, wanted.version, Provenance.CMS)
        obtained = self._proved[wanted.sha256] = Obtained(release)
        return obtained

    def _stored(self, info: TargetInfo) -> Path | None:
        try:
            return self._room.store.open_verified(info).file
        except StoreError:  # absent, or damaged and set aside: it is fetched
            return None

    async def _fetch(self, controller: str, wanted: Wanted, info: TargetInfo) -> None:
        with await asyncio.to_thread(self._room.store.stage, info) as staged:
            await self._client.download(controller, wanted.href, staged, length=info.length)
        try:
            verified = await asyncio.to_thread(verify_target, info, staged.path)
            await asyncio.to_thread(self._prove, staged.path, info)
        except (TrustError, BundleError, LengthOrHashError):
            await asyncio.to_thread(staged.discard)
            raise
        await asyncio.to_thread(self._room.store.publish, verified)
