"""The mirror of one repository: refresh, fetch what this site needs, verify, keep, then publish; keyless.

Order (TUF 1.0, section 6.2; a reader or a power cut finds the old or the new repository):

1. metadata is refreshed and verified, from one upstream at a time in their order;
2. targets for this site's hardware are fetched into staging, resuming what an earlier run left there, and verified against
   the metadata, bundles also against their CMS policy; only then does the store take them over;
3. metadata is written byte for byte, the timestamp last.

A `.zck` whose metadata pins its zchunk header is not fetched: the relay gets its chunks when they are asked for. A target
that cannot be had or is refused is not listed here, its reason is, and the next refresh tries again. Without any
upstream the repository stays as it was last verified.

A *visitor* is an upstream that is here for a while (a stick). While it is visited, it alone is asked for metadata and bundles, by
the same rules; as long as it is here it is the first that is asked for chunks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from gateway.fleet.catalogue import RepositoryState
from gateway.north.sources import Current, Preference, TargetSource, Upstream
from update.errors import (
    BundleError,
    EndlessDataError,
    FieldrelayError,
    LengthOrHashError,
    NotFoundError,
    NotStoredError,
    StoreError,
    TrustError,
    WireError,
)
from update.identity import Hardware
from update.store.store import Store
from update.trust.client import Refreshed, Repository
from update.trust.verified import TargetInfo, VerifiedTarget, verify_target

_log = logging.getLogger(__name__)

Inspect = Callable[[Path, TargetInfo], None]
"""Proves a bundle's own signature; raises what is wrong with it."""
Admit = Callable[[TargetInfo], Awaitable[None]]
"""Makes room for a target; `NoSpaceError` if there is none."""
Shown = Callable[[str, Collection[TargetInfo]], None]
"""Told of the targets that a repository lists from now on."""
Lacking = Callable[[Sequence[TargetInfo]], None]
"""Told of the targets that are going to be fetched."""


async def _always(_info: TargetInfo) -> None:
    """There is room."""


def _unheard(_repository: str, _listed: Collection[TargetInfo]) -> None:
    """Nobody wants to know."""


def _unasked(_lacking: Sequence[TargetInfo]) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class _View:
    """What readers see; replaced as a whole."""

    metadata: Mapping[str, bytes] = field(default_factory=dict)
    targets: Mapping[str, TargetInfo] = field(default_factory=dict)  # by path on the wire
    refused: Mapping[str, FieldrelayError] = field(default_factory=dict)
    refreshed: Refreshed | None = None
    at: datetime | None = None


class Mirror:
    """One repository. `current` is the fetcher that `repository` was made with."""

    def __init__(
        self,
        repository: Repository,
        current: Current,
        upstreams: Sequence[Upstream],
        store: Store,
        *,
        hardware: Sequence[Hardware],
        inspect: Inspect,
        now: Callable[[], datetime],
        admit: Admit = _always,
        shown: Shown = _unheard,
    ) -> None:
        self.name = repository.name
        self._repository = repository
        self._current = current
        self._preference = Preference(upstreams)
        self._visitor: Upstream | None = None
        self._store = store
        self._hardware = tuple(hardware)
        self._inspect = inspect
        self._admit = admit
        self._shown = shown
        self._now = now
        self._lock = asyncio.Lock()
        self._view = _View()
        self._trouble: FieldrelayError | None = None
        self._inspected: set[TargetInfo] = set()

    def targets(self) -> tuple[TargetInfo, ...]:
        """What is listed and can be had, by path."""
        return tuple(sorted(self._view.targets.values(), key=lambda info: info.path))

    def find(self, wire_path: str) -> TargetInfo | None:
        """The target behind a path on the wire."""
        return self._view.targets.get(wire_path)

    def metadata(self, name: str) -> bytes | None:
        """A metadata file, byte for byte."""
        return self._view.metadata.get(name)

    def is_unread(self) -> bool:
        """Whether nothing of it has been verified so far, and an upstream may change that."""
        return self._view.refreshed is None and bool(self._preference.order())

    def sources_of(self, info: TargetInfo) -> tuple[TargetSource, ...]:
        """Where the relay gets missing chunks of a target."""
        ordinary = tuple(TargetSource(upstream, info, self._preference) for upstream in self._preference.order())
        if self._visitor is None:
            return ordinary
        return (TargetSource(self._visitor, info, Preference((self._visitor,))), *ordinary)

    def reachable(self) -> tuple[str, ...]:
        """The upstreams that could be reached when they were last asked."""
        return self._preference.reachable()

    def state(self) -> RepositoryState:
        """How the mirror stands."""
        view, refreshed = self._view, self._view.refreshed
        trouble = self._trouble or next(iter(view.refused.values()), None)
        versions = refreshed.versions if refreshed else None
        return RepositoryState(
            name=self.name,
            targets=len(view.targets),
            versions={} if versions is None else asdict(versions),
            stale=refreshed.stale if refreshed else (),
            issued=refreshed.issued if refreshed else None,
            refreshed=view.at,
            code=trouble.code if trouble else "",
            problem=str(trouble) if trouble else "",
        )

    async def restore(self) -> None:
        """Show what was last verified, from disk only; called once at the start."""
        async with self._lock:
            try:
                await self._show(await self._repository.restore(), fetch=False)
            except NotStoredError:
                return  # nothing was ever mirrored
            except (TrustError, StoreError) as error:
                self._note(error)

    async def refresh(self) -> RepositoryState:
        """Ask the upstreams for news; trouble is in the answer, never raised."""
        async with self._lock:
            try:
                refreshed = await self._ask()
                self._trouble = None
                await self._show(refreshed, fetch=True)
            except FieldrelayError as error:
                self._note(error)
                await self._return_to_last()
        return self.state()

    async def visit(
        self, visitor: Upstream, lacking: Lacking = _unasked, *, grace: timedelta = timedelta()
    ) -> Mapping[str, FieldrelayError]:
        """Take what a visitor brings; why targets of it were refused, by path. `leave` ends it, also after an error.

        `grace`: how long past their expiry its timestamp and snapshot may be.

        Errors: `TrustError` for metadata that is refused, and what the visitor raises; the repository is then as it was.
        """
        async with self._lock:
            self._visitor = self._current.upstream = visitor
            try:
                refreshed = await self._repository.refresh(grace=grace)
                self._trouble = None
                return await self._show(refreshed, fetch=True, visitor=visitor, lacking=lacking)
            except FieldrelayError:
                await self._return_to_last()
                raise

    def leave(self, visitor: Upstream) -> None:
        """The visitor goes, or has gone."""
        if self._visitor is visitor:
            self._visitor = None

    async def _ask(self) -> Refreshed:
        """Refresh from the first upstream that can."""
        trouble: FieldrelayError = NotFoundError(f"repository {self.name} has no upstream")
        for upstream in self._preference.order():
            self._current.upstream = upstream
            try:
                refreshed = await self._repository.refresh()
            except (WireError, TrustError) as error:
                trouble = self._failed(upstream, error)
                continue
            self._preference.answered(upstream)
            return refreshed
        raise trouble

    async def _return_to_last(self) -> None:
        """A refresh that failed leaves nothing trusted in memory; the view stays, so its metadata must be readable again."""
        try:
            await self._repository.restore()
        except FieldrelayError as error:
            _log.debug("mirror %s: nothing to return to: %s", self.name, error)

    async def _show(
        self, refreshed: Refreshed, *, fetch: bool, visitor: Upstream | None = None, lacking: Lacking = _unasked
    ) -> Mapping[str, FieldrelayError]:
        """Keep what is needed, publish the metadata, and let readers see it; why targets were refused, by path."""
        listed: dict[str, TargetInfo] = {}
        refused: dict[str, FieldrelayError] = {}
        wanted = [info for info in await self._repository.targets() if self._is_wanted(info)]
        lacking([info for info in wanted if self._store.find(info) is None])
        for info in wanted:
            try:
                if not _is_relayed(info):
                    await self._keep(info, fetch=fetch, visitor=visitor)
                listed[info.wire_path] = info
            except FieldrelayError as error:
                _log.warning("mirror %s: %s: %s (%s)", self.name, info.path, error, error.code)
                refused[info.path] = error
        refused.update(self._repository.problems)
        files = [(name.removeprefix("metadata/"), data) for name, data in await self._repository.metadata_files()]
        await asyncio.to_thread(self._store.publish_metadata, self.name, files)
        self._view = _View(dict(files), listed, refused, refreshed, self._now())
        self._inspected.intersection_update(listed.values())  # what comes back is inspected, and learned, again
        self._shown(self.name, listed.values())
        return refused

    def _is_wanted(self, info: TargetInfo) -> bool:
        ids = info.custom.hw_ids
        return not self._hardware or not ids or any(each.accepts(ids) for each in self._hardware)

    async def _keep(self, info: TargetInfo, *, fetch: bool, visitor: Upstream | None) -> None:
        """Have a verified target in the store."""
        stored = await asyncio.to_thread(self._stored, info)
        if stored is None and not fetch:
            raise NotStoredError(f"{info.path} was not mirrored before; the next refresh fetches it")
        if stored is None:
            await self._fetch(info, (visitor,) if visitor else self._preference.order())
        elif info not in self._inspected:
            await asyncio.to_thread(self._inspect, stored, info)
        self._inspected.add(info)

    def _stored(self, info: TargetInfo) -> Path | None:
        try:
            return self._store.open_verified(info).file
        except StoreError as error:
            _log.debug("mirror %s: %s", self.name, error)
            return None

    async def _fetch(self, info: TargetInfo, upstreams: Sequence[Upstream]) -> None:
        """Staging, verification, store; from the first upstream that has what was signed."""
        await self._admit(info)
        verified = await self._download(info, upstreams)
        try:
            await asyncio.to_thread(self._inspect, verified.file, info)
        except (TrustError, BundleError):
            await asyncio.to_thread(self._discard, info)
            raise
        await asyncio.to_thread(self._store.publish, verified)

    async def _download(self, info: TargetInfo, upstreams: Sequence[Upstream]) -> VerifiedTarget:
        trouble: FieldrelayError = NotFoundError(f"{info.path} has no upstream")
        for upstream in upstreams:
            try:
                return await self._download_from(upstream, info)
            except NotFoundError as error:  # it lacks this one: no reason to ask others first for the rest
                trouble = error
            except (WireError, EndlessDataError, LengthOrHashError) as error:
                trouble = self._failed(upstream, error)
        raise trouble

    async def _download_from(self, upstream: Upstream, info: TargetInfo) -> VerifiedTarget:
        """Go on where staging ends; if the whole is wrong then, fetch all of it from this upstream alone."""
        with await asyncio.to_thread(self._store.stage, info) as staged:
            resumed_at = staged.size()
            await upstream.download(info.wire_path, staged, length=info.length)
        try:
            return await asyncio.to_thread(verify_target, info, staged.path)
        except LengthOrHashError:
            await asyncio.to_thread(staged.discard)
            if not resumed_at:
                raise
        return await self._download_from(upstream, info)

    def _discard(self, info: TargetInfo) -> None:
        with self._store.stage(info) as staged:
            staged.discard()

    def _failed(self, upstream: Upstream, error: FieldrelayError) -> FieldrelayError:
        _log.warning("mirror %s: upstream %s: %s (%s)", self.name, upstream.name, error, error.code)
        if upstream is not self._visitor:
            self._preference.failed(upstream)
        return error

    def _note(self, error: FieldrelayError) -> None:
        self._trouble = error
        _log.error("mirror %s: %s (%s)", self.name, error, error.code)


def _is_relayed(info: TargetInfo) -> bool:
    return info.custom.zck_header is not None
