"""Single bundles of a medium: no metadata tells their digest, so it is found out while they come.

What a repository lists is taken as such (provenance `tuf`). Else the bundle's own signature must prove it, against the
authorities of one of the repositories for which the site allows that; its provenance is `cms`: nothing vouches for its freshness.
A bundle that cannot be proved leaves nothing behind.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gateway.fleet.by_hand import Brought
from gateway.north.intake.desk import Desk
from gateway.north.intake.visitor import copy
from gateway.north.vouched import Obtained, Vouched
from media.records import Content, Kind, Verdict
from update.digest import Digest, digest_of
from update.errors import FieldrelayError, MediumGoneError, ProvenanceError, StoreError
from update.store.staging import Staged
from update.trust.verified import TargetInfo, verify_target

_BLOCK_BYTES = 1 << 20


class SingleBundles:
    """Takes bundles for the repositories of `vouched`, tried in their order; none: single bundles are refused."""

    def __init__(self, vouched: Sequence[Vouched]) -> None:
        self._vouched = tuple(vouched)

    async def take(self, desk: Desk, number: int, name: str, size_bytes: int) -> tuple[Content, Brought | None]:
        """What became of one; refusals are in the content. Errors: `MediumGoneError`, `StoreError`."""
        content = Content(kind=Kind.BUNDLE, name=name, verdict=Verdict.REFUSED, size_bytes=size_bytes)
        try:
            if not self._vouched:
                raise ProvenanceError(
                    "single bundles are not taken here, since nothing vouches for their freshness: put a repository on the "
                    "stick, or name repositories in media.singles"
                )
            known, obtained = await self._obtain(desk, number, name, size_bytes)
        except (MediumGoneError, StoreError):
            raise
        except FieldrelayError as error:
            return replace(content, code=error.code, message=str(error)[:1000]), None
        release = obtained.release
        told = replace(content, repository=release.repository, version=release.version, sha256=release.sha256)
        verdict = Verdict.KNOWN if known else Verdict.ACCEPTED
        return replace(told, verdict=verdict), Brought(release, 0, obtained.hardware)

    async def _obtain(self, desk: Desk, number: int, name: str, size_bytes: int) -> tuple[bool, Obtained]:
        """Whether it was here already, and the bundle."""
        first = self._vouched[0]
        arriving = first.info("arriving.swu", digest_of(f"{desk.label}/{number}/{name}/{size_bytes}".encode()), size_bytes)
        await first.room.admit(arriving)
        with await asyncio.to_thread(first.room.store.stage, arriving) as staged:
            await copy(desk, number, (), staged, length=size_bytes)
            sha256 = await asyncio.to_thread(_sha256, staged, size_bytes)
        try:
            return await self.keep(sha256, size_bytes, staged, name="stick")
        finally:
            await asyncio.to_thread(staged.discard)  # it was staged under a name that means nothing from here on

    async def keep(self, sha256: Digest, size_bytes: int, staged: Staged, *, name: str) -> tuple[bool, Obtained]:
        """Prove what is staged and keep it, as a file `name`: whether it was here already, and the bundle.

        Errors: `TrustError`, `BundleError`, `StoreError`.
        """
        listed = self._vouched[0].listed(sha256, size_bytes)
        if listed is not None:
            return await self._keep_listed(listed[0], staged), listed[1]
        trouble: FieldrelayError | None = None
        rauc = await asyncio.to_thread(_is_squashfs, staged.path)  # its name on the medium says nothing
        for vouched in self._vouched:
            info = vouched.info(f"{name}.raucb" if rauc else f"{name}.swu", sha256, size_bytes)
            try:
                if (kept := await vouched.kept(info)) is not None:
                    return True, kept
                await asyncio.to_thread(vouched.prove, staged.path, info)
                return False, await vouched.keep(info, staged)
            except (MediumGoneError, StoreError):
                raise
            except FieldrelayError as error:
                trouble = error
        raise trouble or ProvenanceError("no repository vouches for single bundles here")

    async def _keep_listed(self, info: TargetInfo, staged: Staged) -> bool:
        store = self._vouched[0].room.store
        if store.find(info) is not None:
            return True
        await asyncio.to_thread(lambda: store.publish(verify_target(info, staged.path)))
        return False


def _is_squashfs(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"hsqs"


def _sha256(staged: Staged, size_bytes: int) -> Digest:
    """Of what was copied, read back from the copy."""
    hasher = hashlib.sha256()
    with staged.path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    if (size := staged.path.stat().st_size) != size_bytes:
        raise StoreError(f"the copy has {size} bytes, {size_bytes} were copied")
    return Digest(hasher.hexdigest())
