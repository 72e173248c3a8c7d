"""Bundles that an assigner elsewhere wants, and whose word they go by, before any node hears of them.

1. A repository whose verified metadata lists the same SHA-256 and length knows the bundle: its provenance is `tuf`, and it is
   mirrored like everything there.
2. Otherwise it is proved by its own signature against the authorities of the one repository that is configured for the
   assigner, and kept among that repository's content: its provenance is `cms`.

What was proved is told to `Adopting` before anybody wants it, since the signed URLs of a delta are served only then.

Each assigner's own module says where the bytes come from, and under what they are looked up.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.database.records import Release
from gateway.fleet.nodes import release_of
from gateway.north.room import Room
from update.bundle.deltas import Body, bodies
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.digest import Digest
from update.errors import BundleError, LengthOrHashError, StoreError, TrustError
from update.store.staging import Staged
from update.trust.verified import Provenance, TargetCustom, TargetInfo, verify_target

Prove = Callable[[Path, TargetInfo], VerifiedBundle | VerifiedRaucBundle]
"""Proves a bundle by its own signature, against the authorities of the target's repository. Errors: trust and bundle ones."""
Listed = Callable[[], Iterable[TargetInfo]]
"""Everything that the repositories list now."""


class Adopting(Protocol):
    """Who has the signed URLs of proved bundles served."""

    async def adopt(self, release: Release, bundle: VerifiedBundle, *, is_delta: bool) -> None:
        """A bundle was proved that somebody is about to want."""
        ...

    def expect(self, release: Release) -> bool:
        """Somebody is about to want it again; False if it must be proved again before."""
        ...


@dataclass(frozen=True, slots=True)
class Obtained:
    """A bundle that may be offered: `hardware` are the identifiers that it is for, where that is known.

    `bodies` are what it fetches from, of a delta that no metadata lists.
    """

    release: Release
    hardware: tuple[str, ...] = ()
    bodies: tuple[Body, ...] = ()


class Vouched:
    """The bundles of one assigner. `repository` is whose authorities prove what no metadata lists."""

    def __init__(self, room: Room, *, repository: str, listed: Listed, prove: Prove, adoption: Adopting | None = None) -> None:
        self.room = room
        self._adoption = adoption
        self._repository = repository
        self._listed = listed
        self.prove = prove
        self._proved: dict[Digest, Obtained] = {}

    def listed(self, sha256: Digest, length: int) -> tuple[TargetInfo, Obtained] | None:
        """The bundle, if a repository lists it (rule 1)."""
        for info in self._listed():
            if (info.sha256, info.length) == (sha256, length):
                return info, Obtained(release_of(info), info.custom.hw_ids)
        return None

    def info(self, name: str, sha256: Digest, length: int, version: str = "") -> TargetInfo:
        """What is said of a bundle that no metadata lists; the version counts where the bundle states none that can be read."""
        return TargetInfo(self._repository, name, length, sha256, TargetCustom(version=version), "")

    async def kept(self, info: TargetInfo) -> Obtained | None:
        """The bundle, if it is stored; proved again where this process has not yet. Errors: `TrustError`, `BundleError`."""
        if (known := self._proved.get(info.sha256)) is not None and self._is_kept(known, info):
            return known
        file = await asyncio.to_thread(self._stored, info)
        return None if file is None else await self._by_its_signature(info, file)

    async def keep(self, info: TargetInfo, staged: Staged) -> Obtained:
        """Prove what has come completely, and store it; what cannot be proved is thrown away.

        Errors: `TrustError`, `BundleError`, `LengthOrHashError`, `StoreError`.
        """
        try:
            verified = await asyncio.to_thread(verify_target, info, staged.path)
            obtained = await self._by_its_signature(info, staged.path)
        except (TrustError, BundleError, LengthOrHashError):
            await asyncio.to_thread(staged.discard)
            raise
        await asyncio.to_thread(self.room.store.publish, verified)
        return obtained

    def _is_kept(self, known: Obtained, info: TargetInfo) -> bool:
        expected = self._adoption is None or self._adoption.expect(known.release)
        return expected and self.room.store.find(info) is not None

    def _stored(self, info: TargetInfo) -> Path | None:
        try:
            return self.room.store.open_verified(info).file
        except StoreError:  # absent, or damaged and set aside: it is fetched
            return None

    async def _by_its_signature(self, info: TargetInfo, file: Path) -> Obtained:
        bundle = await asyncio.to_thread(self.prove, file, info)
        version = _version(bundle) or info.custom.version  # what was signed is what the node will say that it runs
        release = Release(info.repository, info.path, info.sha256, info.length, version, Provenance.CMS)
        fetched_from: tuple[Body, ...] = ()
        if isinstance(bundle, VerifiedBundle):
            fetched_from = await asyncio.to_thread(readable_bodies, bundle)
            if self._adoption is not None:
                await self._adoption.adopt(release, bundle, is_delta=bool(fetched_from))
        obtained = self._proved[info.sha256] = Obtained(release, bodies=fetched_from)
        return obtained


def readable_bodies(bundle: VerifiedBundle) -> tuple[Body, ...]:
    """What a bundle fetches from; nothing where a header cannot be read, which whoever installs it will say."""
    try:
        return bodies(bundle)
    except BundleError:
        return ()


def _version(bundle: VerifiedBundle | VerifiedRaucBundle) -> str:
    """What a bundle says of itself; a plain RAUC bundle says nothing that can be read here."""
    if isinstance(bundle, VerifiedBundle):
        return bundle.description.version
    return "" if bundle.manifest is None else bundle.manifest.version
