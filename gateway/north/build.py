"""The mirrors of this gateway, built as they are configured."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import aiohttp

from gateway.config import GatewayConfig, RepositorySection, StateFolder
from gateway.database.engine import Database
from gateway.fleet.needs import Lookout
from gateway.north.mirrors import Mirrors
from gateway.north.prefetch import Chunks, Prefetch
from gateway.north.proofs import Proofs
from gateway.north.room import Room
from gateway.north.sources import ALONE, AMONG_OTHERS, Current, FolderUpstream, HttpUpstream, Persistence, Upstream
from gateway.north.upstream import Mirror
from update.bundle.verified import VerifiedBundle
from update.durable import Disk
from update.identity import Hardware
from update.provided import read_provided
from update.store.journal import Journal
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import TargetInfo
from update.wire.habits import Habits
from update.wire.line import Line

Learn = Callable[[TargetInfo, VerifiedBundle], None]
"""Told of every `.swu` that was proved."""
Shown = Callable[[str, Collection[TargetInfo]], None]
"""Told of what a repository lists from now on, before the room is."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the mirrors have in common."""

    disk: Disk
    room: Room
    floor: Floor
    session: aiohttp.ClientSession
    habits: Habits
    line: Line
    proofs: Proofs
    learn: Learn
    shown: Shown
    now: Callable[[], datetime]


def make_mirrors(
    config: GatewayConfig,
    folder: StateFolder,
    disk: Disk,
    session: aiohttp.ClientSession,
    now: Callable[[], datetime],
    *,
    room: Room,
    line: Line,
    proofs: Proofs,
    learn: Learn,
    shown: Shown,
) -> Mirrors:
    """All mirrors. Errors: `FloorError`, `ConfigurationError`."""
    floor = Floor(disk, folder.floor)
    floor.load()
    habits = Habits(Journal(disk, folder.habits))
    shared = Shared(disk, room, floor, session, habits, line, proofs, learn, shown, now)
    mirrors = [_make_mirror(section, shared) for section in config.repository]
    return Mirrors(mirrors, {section.name: section.poll_interval_s for section in config.repository})


def make_prefetch(
    config: GatewayConfig, database: Database, mirrors: Mirrors, chunks: Chunks, *, store: Store, proofs: Proofs
) -> Prefetch:
    """What fetches images of ordered releases beforehand, woken by all news."""
    changed = asyncio.Event()
    database.watch(changed.set)
    mirrors.watch(changed.set)
    modes = {section.name: section.prefetch for section in config.repository}
    provable = [section.name for section in config.repository if section.cms_roots]
    lookout = Lookout(database, mirrors, modes, partial(proofs.deltas_of, store), provable=provable)
    return Prefetch(lookout.look, chunks, store, changed)


def _make_mirror(section: RepositorySection, shared: Shared) -> Mirror:
    trust = ALONE if len(section.upstreams) == 1 else AMONG_OTHERS
    upstreams = [_make_upstream(place, shared, trust) for place in section.upstreams]
    current = Current(upstreams[0])
    repository = Repository(
        section.name,
        trusted=shared.room.store.layout.trusted(section.name),
        root=read_provided(section.root),
        fetcher=current,
        disk=shared.disk,
        floor=shared.floor,
        now=shared.now,
    )

    def inspect(file: Path, info: TargetInfo) -> None:
        bundle = shared.proofs.verify(file, info)
        if isinstance(bundle, VerifiedBundle):  # a RAUC bundle names no URLs
            shared.learn(info, bundle)

    def show(name: str, listed: Collection[TargetInfo]) -> None:
        shared.shown(name, listed)
        shared.room.shown(name, listed)

    return Mirror(
        repository,
        current,
        upstreams,
        shared.room.store,
        hardware=[Hardware.parse(text) for text in section.hardware],
        inspect=inspect,
        now=shared.now,
        admit=shared.room.admit,
        shown=show,
    )


def _make_upstream(place: str, shared: Shared, trust: Persistence) -> Upstream:
    if "://" not in place:
        return FolderUpstream(Path(place))
    return HttpUpstream(shared.session, place, retry=trust.retry, patience=trust.patience, habits=shared.habits, line=shared.line)
