"""One visit of one medium: what it offers is judged, fetched, verified and published, and what became of it is told.

A repository is tried against each that is configured, by the pinned root of each: the one that takes it is the one that it
belongs to. What the medium does not hold is not fetched from elsewhere for its sake: nobody who holds a stick waits for the line.
Images that are otherwise relayed are completed here, chunk by chunk, from what is missing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from gateway.fleet.by_hand import Brought
from gateway.north.intake.desk import Desk
from gateway.north.intake.visitor import Visitor
from gateway.north.mirrors import Mirrors
from media.medium import shown
from media.records import Content, Kind, Offer, Recognised, Verdict
from update.chunks.ranges import Range
from update.errors import (
    FieldrelayError,
    ForbiddenError,
    MediumGoneError,
    NotFoundError,
    SignatureError,
    StoreError,
    ThresholdError,
)
from update.store.store import Store
from update.trust.verified import TargetInfo

_LOG = logging.getLogger(__name__)

PIECE_BYTES: Final = 8 << 20
_FOREIGN = "no repository that is configured here trusts it; was the stick made for another site?"


class Chunks(Protocol):
    """The relay, from behind."""

    async def bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        """Have chunks at hand. Errors: `WireError`, `MediumError`, `StoreError`, `BundleError`."""
        ...


class Singles(Protocol):
    """Takes single bundles."""

    async def take(self, desk: Desk, number: int, name: str, size_bytes: int) -> tuple[Content, Brought | None]:
        """What became of one; refusals are in the content. Errors: `MediumGoneError`, `StoreError`."""
        ...


class Requests(Protocol):
    """Takes requests that lie on a medium."""

    async def take(self, data: bytes, name: str, *, writable: bool) -> Content:
        """What becomes of one."""
        ...


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a visit brought: repositories that were taken, single bundles, and all of it for people."""

    repositories: tuple[str, ...]
    singles: tuple[Brought, ...]
    contents: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class _Bring:
    """One visit: where its bytes come from, who is told how many are lacking, and how long past its expiry it may be."""

    desk: Desk
    lacking: Callable[[int], None]
    grace: timedelta


class Adopter:
    """Adopts what visits bring. `lacking` of a visit is called with bytes that are going to be asked for besides."""

    def __init__(
        self, mirrors: Mirrors, store: Store, chunks: Chunks, singles: Singles, requests: Requests | None = None
    ) -> None:
        self._mirrors = mirrors
        self._store = store
        self._chunks = chunks
        self._singles = singles
        self._requests = requests

    async def adopt(self, desk: Desk, offer: Offer, lacking: Callable[[int], None], *, grace: timedelta = timedelta()) -> Adopted:
        """Everything of an offer, in its order; `grace`: how long past its expiry it may be.

        Errors: `MediumGoneError`, `StoreError`.
        """
        bring = _Bring(desk, lacking, grace)
        repositories: list[str] = []
        singles: list[Brought] = []
        contents: list[Content] = []
        for found in offer.found:
            match found.kind:
                case Kind.REPOSITORY:
                    name, judged = await self._repository(bring, found)
                    repositories += [name] if name else []
                    contents += judged
                case Kind.BUNDLE:
                    lacking(found.size_bytes)
                    content, brought = await self._singles.take(desk, found.number, found.name, found.size_bytes)
                    contents.append(content)
                    singles += [brought] if brought else []
                case Kind.REQUEST:
                    contents.append(await self._request(desk, found, writable=offer.writable))
        return Adopted(tuple(repositories), tuple(singles), tuple(contents))

    async def _request(self, desk: Desk, found: Recognised, *, writable: bool) -> Content:
        if self._requests is None:
            content = Content(kind=Kind.REQUEST, name=found.name, verdict=Verdict.KNOWN)
            return _refused(content, ForbiddenError("this gateway answers no requests from media"))
        data = await desk.file(found.number, (), found.size_bytes)
        return await self._requests.take(data, found.name, writable=writable)

    async def _repository(self, bring: _Bring, found: Recognised) -> tuple[str, tuple[Content, ...]]:
        """The configured repository that it belongs to (empty: none), and what became of it."""
        trouble: FieldrelayError = SignatureError(_FOREIGN)
        belongs = ""
        for name in self._mirrors.repositories():
            visitor = Visitor(bring.desk, found.number)
            try:
                return name, await self._visit(name, visitor, bring, found)
            except (MediumGoneError, StoreError):
                raise
            except (SignatureError, ThresholdError) as error:
                _LOG.info("%s is not repository %s: %s (%s)", found.name or bring.desk.label, name, error, error.code)
            except FieldrelayError as error:
                trouble, belongs = error, name
            finally:
                self._mirrors.leave(name, visitor)
        _LOG.warning("a repository of %s is refused: %s (%s)", bring.desk.label, trouble, trouble.code)
        return "", (_refused(Content(kind=Kind.REPOSITORY, name=found.name, repository=belongs, verdict=Verdict.KNOWN), trouble),)

    async def _visit(self, name: str, visitor: Visitor, bring: _Bring, found: Recognised) -> tuple[Content, ...]:
        missing: list[TargetInfo] = []

        def note(targets: Sequence[TargetInfo]) -> None:
            missing.extend(targets)
            bring.lacking(sum(info.length for info in targets))

        troubles = dict(await self._mirrors.visited(name, visitor, note, grace=bring.grace))
        for info in missing:
            if info.custom.zck_header is not None and info.path not in troubles:
                try:
                    await self._image(bring.desk, found.number, info)
                except (MediumGoneError, StoreError):
                    raise
                except FieldrelayError as error:
                    troubles[info.path] = error
        return self._told(name, found, missing, troubles)

    async def _image(self, desk: Desk, number: int, info: TargetInfo) -> None:
        """Complete an image by the relay; `NotFoundError` where the medium does not hold it."""
        path = tuple(info.wire_path.split("/"))
        async with aclosing(desk.pieces(number, path, (Range(0, 1),))) as pieces:
            async for _ in pieces:
                pass
        for start in range(0, info.length, PIECE_BYTES):
            await self._chunks.bring(info, (Range(start, min(PIECE_BYTES, info.length - start)),))

    def _told(
        self, name: str, found: Recognised, missing: Sequence[TargetInfo], troubles: Mapping[str, FieldrelayError]
    ) -> tuple[Content, ...]:
        plain = partial(Content, repository=name)
        come = [info for info in missing if info.path not in troubles]
        verdict = Verdict.ACCEPTED if come else Verdict.KNOWN
        told = [plain(kind=Kind.REPOSITORY, name=found.name, verdict=verdict, size_bytes=sum(info.length for info in come))]
        told += [_of(info, Verdict.ACCEPTED, plain) for info in come]
        for info in missing:
            error = troubles.get(info.path)
            if error is not None and not isinstance(error, NotFoundError):
                told.append(_refused(_of(info, Verdict.REFUSED, plain), error))
        listed = {info.path for info in missing}
        for path, error in troubles.items():  # what the metadata itself is refused for: roles, and paths that lead nowhere
            if path not in listed and not isinstance(error, NotFoundError):
                told.append(_refused(plain(kind=Kind.BUNDLE, name=shown((path,)), verdict=Verdict.REFUSED), error))
        return tuple(told)


def _of(info: TargetInfo, verdict: Verdict, plain: Callable[..., Content]) -> Content:
    return plain(
        kind=Kind.BUNDLE,
        name=info.path[:300],
        verdict=verdict,
        version=info.custom.version,
        size_bytes=info.length,
        sha256=info.sha256,
    )


def _refused(content: Content, error: FieldrelayError) -> Content:
    """The same, refused."""
    return replace(content, verdict=Verdict.REFUSED, code=error.code, message=str(error)[:1000])
