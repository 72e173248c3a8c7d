"""What is in RAUC bundles, for who judges whether a node would take them: proved once, and kept by digest.

A bundle that is not at hand is not looked into: it is verified before it is stored, and judged before it is offered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from gateway.database.records import Release
from gateway.fleet.fitness import RaucContent
from gateway.north.proofs import Proofs
from gateway.single_flight import SingleFlight
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.digest import Digest
from update.trust.verified import Provenance, TargetCustom, TargetInfo

_MOST_KEPT = 1000


class BundleManifests:
    """Looks into verified bundles; `find` gives the verified file of one, and may take its time."""

    def __init__(self, find: Callable[[TargetInfo], Path | None], proofs: Proofs) -> None:
        self._find = find
        self._proofs = proofs
        self._kept: OrderedDict[Digest, RaucContent | None] = OrderedDict()
        self._reading: SingleFlight[Digest, RaucContent | None] = SingleFlight()

    async def of(self, release: Release) -> RaucContent | None:
        """What is in a bundle; None where it is not at hand, nobody vouches for it, or it is plain.

        Errors: `TrustError`, `BundleError`, `StoreError`.
        """
        if release.sha256 in self._kept:
            self._kept.move_to_end(release.sha256)
            return self._kept[release.sha256]
        return await self._reading.share(release.sha256, lambda: self._read(release))

    async def _read(self, release: Release) -> RaucContent | None:
        info = TargetInfo(
            release.repository, release.path, release.length, release.sha256, TargetCustom(version=release.version), ""
        )
        file = await asyncio.to_thread(self._find, info)
        if file is None:
            return None
        prove = self._proofs.verify if release.provenance is Provenance.TUF else self._proofs.prove
        bundle = await asyncio.to_thread(prove, file, info)
        content = self._kept[release.sha256] = _content(bundle)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return content


def _content(bundle: VerifiedBundle | VerifiedRaucBundle | None) -> RaucContent | None:
    if not isinstance(bundle, VerifiedRaucBundle) or bundle.manifest is None:
        return None
    return RaucContent(bundle.manifest, len(bundle.signers))
