"""What becomes of a push: it is judged like any upstream, as a visitor of the mirror that it belongs to.

1. Metadata that was pushed is tried against the repositories that its pusher may push to, by the pinned root of each. The mirror
   does the rest: trust, hardware, room, the bundles' own signatures; published with the timestamp last, or not at all.
2. Images that are otherwise relayed are completed here, chunk by chunk, from what was pushed.
3. A single bundle is taken where its pusher may bring such, if the authorities of one of its repositories prove it (`cms`).
4. What is listed, is not here and was not pushed is told as missing: a push that brings half a release has failed.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from gateway.fleet.by_hand import Brought, ByHand, Carrier
from gateway.north.intake.singles import SingleBundles
from gateway.north.mirrors import Mirrors
from gateway.north.sources import FolderUpstream
from gateway.north.uploads.files import PushedFiles
from gateway.north.uploads.shelf import Push, Shelf, Upload
from gateway.north.vouched import Vouched
from gateway.sections.pushers import PusherSection
from update.chunks.ranges import Range
from update.digest import Digest, digest_of
from update.errors import FieldrelayError, NotFoundError, ProvenanceError, SignatureError, StoreError, ThresholdError
from update.store.staging import Staged
from update.trust.verified import TargetInfo
from update.wire.push_messages import MAX_FILES, Taken, Told, Verdict

_LOG = logging.getLogger(__name__)
_PIECE_BYTES: Final = 8 << 20
_BLOCK_BYTES: Final = 1 << 20
_MOST_WORDS: Final = 200
_METADATA: Final = "metadata"


class Chunks(Protocol):
    """The relay, from behind."""

    async def bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        """Have chunks at hand. Errors: `WireError`, `StoreError`, `BundleError`."""
        ...


Vouch = Callable[[str], Vouched]
"""Bundles for which a repository vouches."""


class Adoption:
    """Judges pushes, one after the other."""

    def __init__(self, shelf: Shelf, mirrors: Mirrors, chunks: Chunks, vouch: Vouch, by_hand: ByHand) -> None:
        self._shelf = shelf
        self._mirrors = mirrors
        self._chunks = chunks
        self._vouch = vouch
        self._by_hand = by_hand
        self._turn = asyncio.Lock()

    async def adopt(self, push: Push, pusher: PusherSection) -> Verdict:
        """What became of each file. Errors: `StoreError` for what only this machine can mend: the push stays as it is."""
        async with self._turn:
            names = [upload for upload in push.files.values() if len(upload.names) > 1]
            repository, told = await self._repository(push, pusher) if names else ("", [])
            brought: list[Brought] = []
            for upload in push.files.values():
                if len(upload.names) == 1:
                    each, single = await self._single(push, upload, pusher)
                    told.append(each)
                    brought += [single] if single else []
            nodes = await self._order(push, pusher, repository, brought)
        verdict = Verdict(repository, tuple(told[:MAX_FILES]), nodes)
        for each in verdict.refused:
            _LOG.warning("push %s of %s: %s is refused: %s (%s)", push.id, pusher.name, each.path, each.message, each.code)
        _LOG.info("push %s of %s: %d of %d files refused", push.id, pusher.name, len(verdict.refused), len(told))
        return verdict

    async def _order(self, push: Push, pusher: PusherSection, repository: str, brought: Sequence[Brought]) -> int:
        if not pusher.install:
            return 0
        carrier = Carrier(f"push:{push.id}", f"push by {pusher.name}", left_in=True)  # nobody asks to try once more what failed
        ordered = await self._by_hand.order([repository] if repository else [], brought, carrier)
        return sum(1 for each in ordered if not each.code)

    async def _repository(self, push: Push, pusher: PusherSection) -> tuple[str, list[Told]]:
        """Rule 1: the repository that took it (empty: none), and what became of its files."""
        trouble: FieldrelayError = SignatureError("no repository that this pusher may push to trusts it")
        belongs = ""
        for name in [push.repository] if push.repository else pusher.repositories:
            visitor = FolderUpstream(f"push of {pusher.name}", PushedFiles(self._shelf, push))
            try:
                return name, await self._visit(name, visitor, push)
            except StoreError:
                raise
            except (SignatureError, ThresholdError) as error:
                _LOG.info("push %s is not repository %s: %s (%s)", push.id, name, error, error.code)
                trouble = error if push.repository else trouble
            except FieldrelayError as error:
                trouble, belongs = error, name
            finally:
                self._mirrors.leave(name, visitor)
        files = [upload for upload in push.files.values() if len(upload.names) > 1]
        return "", [_refused(Told(each.path, Taken.REFUSED, repository=belongs, bytes=each.length), trouble) for each in files]

    async def _visit(self, name: str, visitor: FolderUpstream, push: Push) -> list[Told]:
        before = {state.name: state.versions for state in self._mirrors.states()}[name]
        missing: list[TargetInfo] = []
        troubles = dict(await self._mirrors.visited(name, visitor, missing.extend))
        for info in missing:
            if info.custom.zck_header is not None and info.path not in troubles:
                try:
                    await self._image(visitor, info)
                except StoreError:
                    raise
                except FieldrelayError as error:
                    troubles[info.path] = error
        after = {state.name: state.versions for state in self._mirrors.states()}[name]
        wanted = {tuple(info.wire_path.split("/")): info for info in missing}
        news = Taken.KNOWN if before == after else Taken.ACCEPTED
        told = [self._told(name, upload, wanted, troubles, news) for upload in push.files.values() if len(upload.names) > 1]
        pushed = {upload.names for upload in push.files.values()}
        absent = [(info, troubles[info.path]) for names, info in wanted.items() if names not in pushed and info.path in troubles]
        return told + [_refused(_of(info, Told(info.wire_path, Taken.REFUSED, repository=name)), why) for info, why in absent]

    async def _image(self, visitor: FolderUpstream, info: TargetInfo) -> None:
        """Rule 2; `NotFoundError` where it was not pushed."""
        async with aclosing(visitor.read_ranges(info.wire_path, (Range(0, 1),))) as pieces:
            async for _ in pieces:
                pass
        for start in range(0, info.length, _PIECE_BYTES):
            await self._chunks.bring(info, (Range(start, min(_PIECE_BYTES, info.length - start)),))

    def _told(
        self,
        name: str,
        upload: Upload,
        wanted: Mapping[tuple[str, ...], TargetInfo],
        troubles: Mapping[str, FieldrelayError],
        news: Taken,
    ) -> Told:
        plain = Told(upload.path, news, repository=name, bytes=upload.length)
        if upload.names[0] == _METADATA:
            return plain
        if (info := wanted.get(upload.names)) is None:
            listed = self._mirrors.find(name, upload.path)
            return replace(plain, verdict=Taken.UNUSED) if listed is None else _of(listed, replace(plain, verdict=Taken.KNOWN))
        trouble = troubles.get(info.path)
        return _of(info, replace(plain, verdict=Taken.ACCEPTED)) if trouble is None else _refused(_of(info, plain), trouble)

    async def _single(self, push: Push, upload: Upload, pusher: PusherSection) -> tuple[Told, Brought | None]:
        """Rule 3."""
        told = Told(upload.path, Taken.REFUSED, bytes=upload.length)
        try:
            if not pusher.singles:
                raise ProvenanceError(
                    f"{pusher.name} may bring no single bundles, since nothing vouches for their freshness: push a repository, "
                    "or allow it by push.pusher.singles"
                )
            vouched = [self._vouch(name) for name in ([push.repository] if push.repository else pusher.repositories)]
            return await self._kept(vouched, self._shelf.part(push, upload), told)
        except StoreError:
            raise
        except FieldrelayError as error:
            return _refused(told, error), None

    async def _kept(self, vouched: Sequence[Vouched], part: Path, told: Told) -> tuple[Told, Brought | None]:
        room = vouched[0].room
        arriving = vouched[0].info("arriving.swu", digest_of(f"push/{part.name}".encode()), told.bytes)
        await room.admit(arriving)
        with await asyncio.to_thread(room.store.stage, arriving) as staged:
            sha256 = await asyncio.to_thread(_copy, part, staged)
        try:
            known, obtained = await SingleBundles(vouched).keep(sha256, told.bytes, staged, name="pushed")
        finally:
            await asyncio.to_thread(staged.discard)
        release, verdict = obtained.release, Taken.KNOWN if known else Taken.ACCEPTED
        done = replace(told, verdict=verdict, repository=release.repository, version=release.version)
        return done, Brought(release, 0, obtained.hardware)


def _copy(part: Path, staged: Staged) -> Digest:
    """Copy a file into staging, from its beginning; the digest of what was written."""
    hasher, offset = hashlib.sha256(), 0
    staged.truncate(0)
    try:
        with part.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                staged.write_at(offset, block)
                hasher.update(block)
                offset += len(block)
    except FileNotFoundError:  # it was announced with no bytes, and none came
        _LOG.debug("%s is empty", part)
    except OSError as error:
        raise StoreError(f"what was pushed cannot be read again from {part}: {error.strerror}") from error
    staged.sync()
    return Digest(hasher.hexdigest())


def _of(info: TargetInfo, told: Told) -> Told:
    return replace(told, version=info.custom.version, bytes=info.length)


def _refused(told: Told, error: FieldrelayError) -> Told:
    words = "it was not pushed and is not here" if isinstance(error, NotFoundError) else str(error)
    return replace(told, verdict=Taken.REFUSED, code=error.code, message=words[:_MOST_WORDS])
