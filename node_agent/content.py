"""Bundles: found in the node's own verified metadata, judged, downloaded into the state folder, verified there.

1. An order is a hint. Its repository must be pinned here, its target listed by metadata that *this* node verified against
   *its own* root, and the order's digest and length must be the metadata's. Absence or difference is refused.
2. The gateway delivers bytes. It can withhold; it cannot make anything else than the signed bundle be installed.
3. What was verified once may be finished without a gateway, and after its metadata expired: `obtain` falls back to the
   kept metadata (expiry stops new installs, never a running one).
4. A file handed in by an operator is copied first and then judged, because a stick can change between two reads. If
   pinned metadata lists its digest it counts as that target; else its provenance is `cms`, and a repository of this node
   must accept that.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from node_agent.config import PatchesSection
from node_agent.proofs import Signers, prove, version_of
from node_agent.record import Release
from node_agent.source import Offer
from node_agent.staging import Staging, copy_bundle, digest_bundle
from update.bundle.cms import CmsPolicy
from update.bundle.rauc_reader import RaucPolicy
from update.bundle.verified import AnyBundle
from update.chunks.pair import PatchOffer
from update.digest import Digest
from update.durable import Disk
from update.errors import (
    FieldrelayError,
    LengthOrHashError,
    NotStoredError,
    ProvenanceError,
    StateError,
    StoreError,
    TrustError,
    UnknownTargetError,
    UnsupportedError,
    WireError,
)
from update.identity import Hardware
from update.store.staging import Staged
from update.trust.client import Fetcher, Repository
from update.trust.floor import Floor
from update.trust.policy import NodePolicy, OperatorWish, judge
from update.trust.verified import Provenance, TargetCustom, TargetInfo

Progress = Callable[[int, int], None]


class Transport(Protocol):
    """How the gateway's bytes reach the node: `node_agent.discovery.Link`. `path` is relative to the repository."""

    def fetcher(self, repository: str) -> Fetcher:
        """Metadata of one repository."""
        ...

    async def download(self, repository: str, path: str, staged: Staged, progress: Progress) -> None:
        """Continue `staged` until it has its whole length, and sync it. Errors: `WireError`, `StoreError`."""
        ...

    def read_ranges(self, repository: str, path: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, bytes) covering the (start, length) of `ranges`, ascending. Errors: `WireError`."""
        ...

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        """The pair patch to the image of `path` that is offered, if any. Errors: `WireError`."""
        ...

    def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        """Its bytes, in order. Errors: `WireError`."""
        ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A repository that this node trusts: its first root, who signs its bundles, and the weakest proof that is accepted."""

    name: str
    root: bytes
    cms: CmsPolicy
    minimum: Provenance = Provenance.TUF
    rauc: RaucPolicy | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node keeps what it fetched, and what it is."""

    folder: Path
    hardware: Hardware
    now: Callable[[], datetime]
    patches: PatchesSection = field(default_factory=PatchesSection)


class Content:
    """The bundles of one node, one at a time."""

    def __init__(self, pinned: Sequence[Pinned], transport: Transport, place: Place, *, disk: Disk, floor: Floor) -> None:
        self._pinned = {each.name: each for each in pinned}
        self._transport = transport
        self._place = place
        self._disk = disk
        self._floor = floor
        self._staging = Staging(disk, place.folder / "staging")
        self._strict = {name: self._repository(name, strict=True) for name in self._pinned}
        self._custom: dict[Digest, TargetCustom] = {}
        self._verified: dict[Digest, AnyBundle] = {}

    async def resolve(self, offer: Offer) -> Release:
        """What an order means here. Errors: leaves of `TrustError`, `WireError` of the gateway, `StoreError`."""
        if offer.file is not None:
            return await self._adopt(offer.file)
        repository = self._strict.get(offer.repository)
        if repository is None or not offer.target or offer.sha256 is None:
            raise UnknownTargetError(
                f"the order names target {offer.target!r} of repository {offer.repository!r}; this node knows "
                f"{', '.join(self._pinned) or 'no repository'} and needs a target with its SHA-256"
            )
        await repository.refresh()
        info = await repository.find(offer.target)
        if (info.sha256, info.length) != (offer.sha256, info.length if offer.length is None else offer.length):
            raise LengthOrHashError(
                f"the order says {offer.target} has SHA-256 {offer.sha256} and {offer.length} bytes, the signed metadata says "
                f"{info.sha256} and {info.length}; nothing was fetched"
            )
        return self._resolved(info)

    async def judge(self, release: Release, reason: str) -> None:
        """May it run here? `reason` is an operator's, for a return to an older release. Errors: leaves of `TrustError`."""
        values = await asyncio.to_thread(self._floor.load)
        judge(
            self._custom[release.sha256],
            Provenance(release.provenance),
            hardware=self._place.hardware,
            floor=values,
            policy=NodePolicy(minimum_provenance=self._pinned[release.repository].minimum),
            wish=OperatorWish(return_reason=reason),
        )

    async def obtain(self, release: Release, progress: Progress) -> AnyBundle:
        """The bundle of `release`, verified completely; fetches only what is missing of it."""
        if (known := self._verified.get(release.sha256)) is not None:
            return known
        info = await self._described(release) if release.provenance == Provenance.TUF else None
        with self._staging.open(release.sha256, release.length) as staged:
            if staged.size() < release.length:
                if info is None:
                    raise NotStoredError(f"the copy of {release.path} is gone from the state folder; hand the file in again")
                await self._transport.download(release.repository, info.wire_path, staged, progress)
        bundle = await self._verify(release, info)
        self._verified = {release.sha256: bundle}
        return bundle

    def chunks(self) -> "GatewayChunks":
        """Where the remote chunks of a bundle are read."""
        return GatewayChunks(self._transport, {name.lower(): name for name in self._pinned}, self._place.patches)

    def forget(self) -> None:
        """Remove everything staged."""
        self._verified = {}
        self._staging.clear()

    def _repository(self, name: str, *, strict: bool) -> Repository:
        return Repository(
            name,
            trusted=self._place.folder / "trusted" / name,
            root=self._pinned[name].root,
            fetcher=self._transport.fetcher(name),
            disk=self._disk,
            floor=self._floor,
            now=self._place.now,
            strict_time=strict,
        )

    def _resolved(self, info: TargetInfo) -> Release:
        self._custom = {info.sha256: info.custom}
        return Release(
            repository=info.repository,
            path=info.path,
            sha256=info.sha256,
            length=info.length,
            version=info.custom.version,
            provenance=Provenance.TUF,
            release_counter=info.custom.release_counter,
            security_counter=info.custom.security_counter,
            bundle=info.sha256,
        )

    async def _described(self, release: Release) -> TargetInfo:
        """The signed description of a release that was resolved before, perhaps before a restart (rule 3)."""
        try:
            info = await self._strict[release.repository].find(release.path)
        except StateError:
            kept = self._repository(release.repository, strict=False)
            await kept.restore()
            info = await kept.find(release.path)
        if info.sha256 != release.sha256:
            raise LengthOrHashError(f"{release.path} was replaced: {release.sha256} was resolved, {info.sha256} is listed now")
        return info

    async def _verify(self, release: Release, info: TargetInfo | None) -> AnyBundle:
        path, signers = self._staging.path(release.sha256), await self._signers(self._pinned[release.repository])
        try:
            return await asyncio.to_thread(prove, path, signers, release, info)
        except FieldrelayError:
            self.forget()
            raise

    async def _adopt(self, file: Path) -> Release:
        """Copy a file that an operator handed in, and find out what it is (rule 4)."""
        sha256, length = await asyncio.to_thread(digest_bundle, file)
        with self._staging.open(sha256, length) as staged:
            await asyncio.to_thread(copy_bundle, file, staged)
        listed = await self._listed(sha256, length)
        if listed is not None:
            return self._resolved(listed)
        return await self._adopt_by_signature(Release("", file.name, sha256, length, "", Provenance.CMS))

    async def _adopt_by_signature(self, release: Release) -> Release:
        """Accept a bundle for its own signature, on behalf of the first repository whose signers made it.

        Its hardware is judged from its own description or manifest, by the driver and before the first byte is written.
        """
        refusal: FieldrelayError = ProvenanceError(
            f"no repository of this node lists {release.path} ({release.sha256}), and none accepts bundles for their signature "
            "alone; let the gateway mirror it, or set minimum_provenance"
        )
        for pinned in self._pinned.values():
            if pinned.minimum is not Provenance.CMS:
                continue
            try:
                signers = await self._signers(pinned)
                signed = await asyncio.to_thread(prove, self._staging.path(release.sha256), signers, release, None)
            except TrustError as error:
                refusal = error
                continue
            version = version_of(signed)
            self._custom = {release.sha256: TargetCustom(hw_ids=(str(self._place.hardware),), version=version)}
            return replace(release, repository=pinned.name, version=version)
        self.forget()
        raise refusal

    async def _listed(self, sha256: Digest, length: int) -> TargetInfo | None:
        """The target of any pinned repository with this content, from metadata kept here that is still fresh."""
        for name in self._pinned:
            kept = self._repository(name, strict=True)
            try:
                await kept.restore()
                targets = await kept.targets()
            except (TrustError, StoreError, WireError):
                continue
            if found := next((each for each in targets if (each.sha256, each.length) == (sha256, length)), None):
                return found
        return None

    async def _signers(self, pinned: Pinned) -> Signers:
        """Who may sign, judged at max(clock, floor)."""
        floor = await asyncio.to_thread(self._floor.load)
        return Signers(pinned.cms, pinned.rauc).judging_at(max(self._place.now(), floor.time))


class GatewayChunks:
    """`ChunkSource`: a bundle names `http://<repository>/targets/...` in its signed description; the gateway serves it."""

    def __init__(self, transport: Transport, names: Mapping[str, str], patches: PatchesSection) -> None:
        self._transport = transport
        self._names = names
        self._patches = patches

    async def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """The bytes of `url` in `ranges`; `UnsupportedError` for a URL of no repository of this node."""
        repository, path = self._target(url)
        async for piece in self._transport.read_ranges(repository, path, ranges):
            yield piece

    async def find_patch(self, url: str, base: Digest) -> PatchOffer | None:
        """A patch that may be used instead, unless this node wants none."""
        return await self._transport.find_patch(*self._target(url), base, self._patches) if self._patches.enabled else None

    def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        """The bytes of that patch."""
        return self._transport.read_patch(*self._target(url), base, offer, self._patches)

    @property
    def patch_memory_bytes(self) -> int:
        """How much memory the application of a patch may take."""
        return self._patches.memory_bytes

    def _target(self, url: str) -> tuple[str, str]:
        """Repository and path on the wire."""
        parts = urlsplit(url)
        repository = self._names.get((parts.hostname or "").lower())
        if repository is None or not parts.path.startswith("/targets/"):
            raise UnsupportedError(f"the bundle reads chunks from {url[:200]!r}, which is no target of a repository of this node")
        return repository, parts.path.removeprefix("/")
