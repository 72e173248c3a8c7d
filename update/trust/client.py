"""The TUF client: one pinned repository, on any fetcher. Opens no connection itself and asks the clock it was given.

`now` is max(clock, time floor). Without `strict_time` an expired timestamp or snapshot is reported as stale instead of
refused (sites without a network; policy decides what that allows); root and targets must never be expired. After a refresh
that failed nothing is trusted in memory; `restore` gives the state of the last complete one, without any fetch.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from tuf.api.metadata import Targets

from update.durable import Disk
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    NotFoundError,
    NotStoredError,
    StateError,
    TrustError,
    UnknownTargetError,
)
from update.trust import rules
from update.trust.floor import Floor
from update.trust.floor_values import RoleVersions
from update.trust.refresh import Delegator, Fetch, Refresh, State, load_targets, wire_path
from update.trust.rules import AnyTrusted, Trusted
from update.trust.trusted_folder import TrustedFolder
from update.trust.verified import TargetInfo


class Fetcher(Protocol):
    """Bytes of one repository, from wherever it is."""

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """The file at `path`, percent-encoded and relative to the repository (`metadata/3.root.json`).

        Errors: `NotFoundError` if the repository does not hold it, `EndlessDataError` beyond `max_bytes`, `SlowError` below
        the minimum rate, another `WireError` otherwise.
        """
        ...


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh found. `time` is what was taken as now (UTC); `stale` names roles past their expiry since `stale_since`."""

    versions: RoleVersions
    time: datetime
    issued: datetime | None = None
    stale: tuple[str, ...] = ()
    stale_since: datetime | None = None

    @property
    def stale_for(self) -> timedelta:
        """How long the oldest stale role is past its expiry; zero when all is fresh."""
        return self.time - self.stale_since if self.stale_since is not None else timedelta()


class Repository:
    """One pinned TUF repository. Errors of every method: leaves of `TrustError`, and what fetcher, disk and floor raise.

    `trusted` is the folder of its own metadata (not a mirror), `root` the pinned root's bytes, `now` the clock (UTC, aware).
    """

    def __init__(
        self,
        name: str,
        *,
        trusted: Path,
        root: bytes,
        fetcher: Fetcher,
        disk: Disk,
        floor: Floor,
        now: Callable[[], datetime],
        strict_time: bool = True,
    ) -> None:
        self.name = name
        self._folder = TrustedFolder(disk, trusted)
        self._pinned = root
        self._fetcher = fetcher
        self._floor = floor
        self._now = now
        self._strict_time = strict_time
        self._lock = asyncio.Lock()
        self._state: State | None = None
        self._targets: dict[tuple[str, str], Trusted[Targets]] = {}
        self._problems: dict[str, FieldrelayError] = {}
        self._accepted: list[AnyTrusted] = []

    @property
    def accepted(self) -> tuple[tuple[str, int], ...]:
        """How far the last refresh or restore came, also if it was refused: (role, version) of what passed, in order."""
        return tuple((each.role, each.version) for each in self._accepted)

    @property
    def problems(self) -> tuple[tuple[str, FieldrelayError], ...]:
        """Delegated roles and targets that were refused when all were last loaded: (name, refusal)."""
        return tuple(self._problems.items())

    async def refresh(self, *, grace: timedelta = timedelta()) -> Refreshed:
        """Bring the metadata up to date from the fetcher. `grace`: how long past its expiry a timestamp or snapshot may be."""
        async with self._lock:
            return await self._update(self._fetch, ahead=True, grace=grace)

    async def restore(self) -> Refreshed:
        """Verify the kept metadata again, without the fetcher; `NotStoredError` if no refresh ever completed here."""
        async with self._lock:
            return await self._update(self._fetch_kept, ahead=False)

    async def find(self, path: str) -> TargetInfo:
        """The target at `path`, searched through the delegations in order; `UnknownTargetError` if no trusted role has it."""
        async with self._lock:
            return await self._search(path)

    async def targets(self) -> list[TargetInfo]:
        """Every target that `find` would find, by path. Refused delegated roles and targets are left out: see `problems`."""
        async with self._lock:
            await self._load_all()
            paths = sorted({path for role in self._targets.values() for path in role.signed.targets})
            found = []
            for path in paths:
                try:
                    found.append(await self._search(path))
                except UnknownTargetError:
                    continue  # listed by a role that is not trusted for this path
                except (TrustError, NotFoundError) as error:
                    self._problems[path] = error
            return found

    async def metadata_files(self) -> list[tuple[str, bytes]]:
        """Every verified file as (path in a repository folder, exact bytes), in the order a mirror writes them: timestamp last.

        Roots from the pinned one on; delegated roles that were refused, or whose names are no file names, are left out.
        """
        async with self._lock:
            state = self._current()
            await self._load_all()
            files = [(f"metadata/{root.version}.root.json", root.data) for root in state.roots]
            for targets in reversed({each.role: each for each in self._targets.values()}.values()):
                path = unquote(wire_path(state.root, targets.role, targets.version))
                if path.count("/") == 1 and "\0" not in path:
                    files.append((path, targets.data))
            files.append((wire_path(state.root, "snapshot", state.snapshot.version), state.snapshot.data))
            return [*files, ("metadata/timestamp.json", state.timestamp.data)]

    async def _update(self, fetch: Fetch, *, ahead: bool, grace: timedelta = timedelta()) -> Refreshed:
        self._state, self._targets, self._problems = None, {}, {}
        floor = await asyncio.to_thread(self._floor.load)
        refresh = Refresh(
            self.name,
            pinned=self._pinned,
            folder=self._folder,
            floor=self._floor,
            fetch=fetch,
            time=max(self._now(), floor.time),
            strict_time=self._strict_time,
            ahead=ahead,
            grace=grace,
        )
        self._accepted = refresh.accepted
        state = await refresh.run()
        self._state, self._targets = state, {("root", "targets"): state.targets}
        return Refreshed(
            versions=state.versions,
            time=state.time,
            issued=rules.issued_time(state.timestamp.signed, state.root.signed),
            stale=tuple(each.role for each in state.stale),
            stale_since=min((each.signed.expires for each in state.stale), default=None),
        )

    async def _search(self, path: str) -> TargetInfo:
        """Depth first, in the order of the delegations; a terminating role ends the search with its own branch (5.6.7)."""
        state = self._current()
        pending: list[tuple[str, Delegator]] = [("targets", state.root)]
        seen: set[str] = set()
        while pending and len(seen) <= rules.MAX_DELEGATIONS:
            role, delegator = pending.pop()
            if role in seen:
                continue
            seen.add(role)
            targets = await self._load(role, delegator)
            info = rules.target_info(self.name, targets, path, prefixed=bool(state.root.signed.consistent_snapshot))
            if info is not None:
                return info
            branch: list[tuple[str, Delegator]] = []
            for name, terminating in rules.roles_for(targets.signed, path):
                branch.append((name, targets))
                if terminating:
                    pending.clear()
                    break
            pending.extend(reversed(branch))
        raise UnknownTargetError(
            f"no trusted role of repository {self.name} lists the target {path[:120]!r}; refresh, or ask its publisher"
        )

    async def _load_all(self) -> None:
        state = self._current()
        self._problems = {}
        pending: list[tuple[str, Delegator]] = [("targets", state.root)]
        seen: set[tuple[str, str]] = set()
        while pending:
            role, delegator = pending.pop()
            if (delegator.role, role) in seen:
                continue
            seen.add((delegator.role, role))
            try:
                targets = await self._load(role, delegator)
            except (TrustError, NotFoundError) as error:
                self._problems[role] = error
                continue
            names = rules.delegated_roles(targets.signed, state.snapshot.signed)
            pending.extend((name, targets) for name in reversed(names))

    async def _load(self, role: str, delegator: Delegator) -> Trusted[Targets]:
        """A role's metadata as `delegator` trusts it; a delegated one is loaded when it is first needed, and kept."""
        known = self._targets.get((delegator.role, role))
        if known is not None:
            return known
        state = self._current()
        targets, fresh = await load_targets(
            self._folder, self._fetch, role=role, delegator=delegator, root=state.root, snapshot=state.snapshot
        )
        rules.check_expiry(targets, state.time)
        if fresh:
            await asyncio.to_thread(self._folder.put, role, targets.version, targets.data)
        self._targets[delegator.role, role] = targets
        return targets

    def _current(self) -> State:
        if self._state is None:
            raise StateError(f"repository {self.name} has no verified metadata in memory: refresh or restore it first")
        return self._state

    async def _fetch(self, path: str, max_bytes: int) -> bytes:
        data = await self._fetcher.fetch(path, max_bytes=max_bytes)
        if len(data) > max_bytes:
            raise EndlessDataError(f"{path}: the source gave {len(data)} bytes, at most {max_bytes} are read")
        return data

    async def _fetch_kept(self, path: str, max_bytes: int) -> bytes:
        """For `restore`: the kept timestamp, no further roots; whatever else is asked for should have been kept."""
        if path.endswith(".root.json"):
            raise NotFoundError(f"{path} is not kept")
        if path == "metadata/timestamp.json":
            data = await asyncio.to_thread(self._folder.read_timestamp, max_bytes)
            if data is not None:
                return data
        raise NotStoredError(f"{path} of repository {self.name} is not kept here; refresh it while a source is reachable")
