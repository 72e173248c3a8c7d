"""Two bundles that an assigner wants as one release: a delta, and the whole one for when the delta cannot be completed.

They are joined only if what is signed in them shows that they install the same (`update.bundle.alike`). The whole one is what is
wanted then; in which form a node gets it is decided when it asks (`fleet.variants`).
"""

import asyncio
from collections.abc import Sequence

from gateway.database.records import Release
from gateway.fleet.unlisted import Unlisted, unlisted_info
from gateway.north.joined import JoinedPairs
from gateway.north.vouched import Obtained, Prove, readable_bodies
from update.bundle.alike import check_alike
from update.bundle.verified import VerifiedBundle
from update.errors import UnsupportedError
from update.store.store import Store


class Joining:
    """Joins stored bundles; what was found alike is remembered by `unlisted`, and `kept` for the next start."""

    def __init__(self, store: Store, prove: Prove, unlisted: Unlisted, kept: JoinedPairs) -> None:
        self._store = store
        self._prove = prove
        self._unlisted = unlisted
        self._kept = kept
        self._keeping = asyncio.Lock()
        for pair in kept.read():
            unlisted.join(*pair)

    async def join(self, found: Sequence[Obtained]) -> Obtained:
        """The whole one of two. Errors: `UnsupportedError` unless they are alike; `TrustError`, `BundleError`, `StoreError`."""
        one, other = found
        if not (joined := self._unlisted.joined(one.release.sha256)) or other.release not in joined:
            joined = await asyncio.to_thread(self._told_apart, one.release, other.release)
            self._unlisted.join(*joined)
            async with self._keeping:
                await asyncio.to_thread(self._kept.write, self._unlisted.pairs())
        return one if one.release == joined[0] else other

    def _told_apart(self, one: Release, other: Release) -> tuple[Release, Release]:
        """The whole one, then the delta."""
        bundles = [(each, self._proved(each)) for each in (one, other)]
        chunked = [(release, bundle) for release, bundle in bundles if readable_bodies(bundle)]
        whole = [each for each in bundles if each not in chunked]
        if not chunked or not whole:
            raise UnsupportedError(
                f"{one.path} and {other.path} are both {'deltas' if chunked else 'whole'}: a deployment needs exactly one "
                "bundle, or a delta and a whole one of the same release"
            )
        try:
            check_alike(chunked[0][1], whole[0][1])
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{one.path} and {other.path} do not install the same, and a deployment needs exactly one bundle: {error}"
            ) from error
        return whole[0][0], chunked[0][0]

    def _proved(self, release: Release) -> VerifiedBundle:
        info = unlisted_info(release)
        bundle = self._prove(self._store.open_verified(info).file, info)
        if not isinstance(bundle, VerifiedBundle):
            raise UnsupportedError(f"{release.path} is no .swu, and stands beside another bundle")
        return bundle
