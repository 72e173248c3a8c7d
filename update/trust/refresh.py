"""One refresh of a repository, in the order of TUF 1.0, section 5: roots one by one, timestamp, snapshot, targets.

Each file is verified, checked for expiry and kept before the next one is asked for. Roots become the trusted ones at once.
Timestamp and snapshot are kept ahead of the complete set: from then on nothing older is accepted (5.4.3, 5.5.5), though what
`restore` uses is still the previous set, so that a site whose network went away in the middle goes on with what it had. With
the targets the new set is complete; its timestamp is written last, then the floor follows.

Trust is derived anew from the pinned root at each start, through the kept roots; a kept file that was lost or altered is
fetched again. What that could let in, the floor keeps out. A rotation of the keys of timestamp or snapshot lowers the floor
*before* the new root is kept, so that a power cut in between can only repeat the step.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from tuf.api.metadata import Root, Snapshot, T, Targets, Timestamp

from update.errors import ExpiredError, NotFoundError, RollbackError, TrustError
from update.trust import rules
from update.trust.floor import Floor
from update.trust.floor_values import RoleVersions
from update.trust.rules import AnyTrusted, Trusted
from update.trust.trusted_folder import TrustedFolder, quoted

Fetch = Callable[[str, int], Awaitable[bytes]]
"""Path relative to the repository and the most bytes that may come."""
Delegator = Trusted[Root] | Trusted[Targets]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class State:
    """A complete verified set. `roots` begins with the pinned one; `time` is what was taken as now (UTC)."""

    roots: tuple[Trusted[Root], ...]
    timestamp: Trusted[Timestamp]
    snapshot: Trusted[Snapshot]
    targets: Trusted[Targets]
    time: datetime
    stale: tuple[Trusted[Timestamp] | Trusted[Snapshot], ...] = ()

    @property
    def root(self) -> Trusted[Root]:
        """The newest root."""
        return self.roots[-1]

    @property
    def versions(self) -> RoleVersions:
        """The versions of the four top-level roles."""
        return RoleVersions(self.root.version, self.timestamp.version, self.snapshot.version, self.targets.version)


def wire_path(root: Trusted[Root], role: str, version: int) -> str:
    """Where a repository serves a role's file, percent-encoded (section 6.2: with consistent snapshots, version first)."""
    prefix = f"{version}." if root.signed.consistent_snapshot else ""
    return f"metadata/{prefix}{quoted(role)}.json"


async def load_targets(
    folder: TrustedFolder, fetch: Fetch, *, role: str, delegator: Delegator, root: Trusted[Root], snapshot: Trusted[Snapshot]
) -> tuple[Trusted[Targets], bool]:
    """A targets role as the snapshot announces it, kept or fetched, and whether it was fetched. Expiry is the caller's."""
    announced = rules.announced_targets(snapshot.signed, role)
    limit = rules.announced_limit(role, announced, rules.MAX_TARGETS_BYTES)
    data = await asyncio.to_thread(folder.read, role, announced.version, limit)
    kept = _unless_refused(data, lambda kept: rules.accept_targets(role, delegator, snapshot, kept))
    if kept is not None:
        return kept, False
    data = await fetch(wire_path(root, role, announced.version), limit)
    return rules.accept_targets(role, delegator, snapshot, data), True


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was trusted before, as far as the root of now still vouches for it."""

    timestamp: Trusted[Timestamp] | None
    snapshot: Trusted[Snapshot] | None


class Refresh:
    """The sequence; one object for one run. `time` is max(clock, time floor), `pinned` the root given in advance.

    `accepted` holds what passed so far, in order: after a refusal it tells how far the run came. With `ahead` false only the
    complete set counts: a later timestamp or snapshot, kept when a refresh broke off, is not compared with. `grace`: by how much
    timestamp and snapshot may be past their expiry even under `strict_time`; an operator's word, for one run.
    """

    def __init__(
        self,
        name: str,
        *,
        pinned: bytes,
        folder: TrustedFolder,
        floor: Floor,
        fetch: Fetch,
        time: datetime,
        strict_time: bool,
        ahead: bool,
        grace: timedelta = timedelta(),
    ) -> None:
        self._name = name
        self._ahead = ahead
        self._pinned = pinned
        self._folder = folder
        self._floor = floor
        self._fetch = fetch
        self._time = time
        self._strict_time = strict_time
        self._grace = grace
        self._stale: list[Trusted[Timestamp] | Trusted[Snapshot]] = []
        self.accepted: list[AnyTrusted] = []

    async def run(self) -> State:
        """Verify, then keep, then raise the floor. Errors: `TrustError` leaves, and what fetcher, disk and floor raise."""
        roots = await self._roots()
        root = roots[-1]
        self.accepted.append(root)
        values = await asyncio.to_thread(self._floor.load)
        floor = values.versions(self._name)
        if root.version < floor.root:
            raise RollbackError(
                f"repository {self._name} leads to root version {root.version}, {floor.root} was already trusted; "
                "use a current mirror"
            )
        rules.check_expiry(root, self._time)
        complete, seen = await asyncio.to_thread(self._recall, root)
        data = await self._fetch("metadata/timestamp.json", rules.MAX_TIMESTAMP_BYTES)
        timestamp = rules.accept_timestamp(root, data, trusted=seen.timestamp, floor=floor)
        self._judge_time(timestamp)
        begun = _differs(timestamp, complete.timestamp)
        if begun and _differs(timestamp, seen.timestamp):
            await asyncio.to_thread(self._folder.put_ahead, "timestamp", timestamp.data)
        snapshot = await self._snapshot(root, timestamp, seen.snapshot, floor)
        self._judge_time(snapshot)
        if begun and _differs(snapshot, seen.snapshot):
            await asyncio.to_thread(self._folder.put_ahead, "snapshot", snapshot.data)
        targets, fresh = await load_targets(
            self._folder, self._fetch, role="targets", delegator=root, root=root, snapshot=snapshot
        )
        rules.check_expiry(targets, self._time)
        self.accepted.append(targets)
        state = State(tuple(roots), timestamp, snapshot, targets, self._time, tuple(self._stale))
        await asyncio.to_thread(self._keep, state, targets=fresh, snapshot=_differs(snapshot, complete.snapshot), timestamp=begun)
        return state

    async def _roots(self) -> list[Trusted[Root]]:
        roots = await asyncio.to_thread(self._kept_roots)
        for _ in range(rules.MAX_ROOTS):
            try:
                data = await self._fetch(f"metadata/{roots[-1].version + 1}.root.json", rules.MAX_ROOT_BYTES)
            except NotFoundError:
                break
            newer = rules.next_root(roots[-1], data)
            await asyncio.to_thread(self._keep_root, roots[-1], newer)
            roots.append(newer)
        return roots

    def _kept_roots(self) -> list[Trusted[Root]]:
        roots = [rules.pinned_root(self._pinned)]
        while True:
            data = self._folder.read("root", roots[-1].version + 1, rules.MAX_ROOT_BYTES)
            newer = _unless_refused(data, lambda kept: rules.next_root(roots[-1], kept))
            if newer is None:
                return roots
            roots.append(newer)

    def _keep_root(self, root: Trusted[Root], newer: Trusted[Root]) -> None:
        if rules.keys_rotated(root.signed, newer.signed):
            self._floor.follow_rotation(self._name, newer.version)
            self._folder.drop_timestamp()
        self._folder.put("root", newer.version, newer.data)

    def _recall(self, root: Trusted[Root]) -> tuple[Recalled, Recalled]:
        """The last complete set, and the newest that was ever verified: the base of rollback comparisons."""

        def timestamp(data: bytes | None) -> Trusted[Timestamp] | None:
            return _unless_refused(data, lambda kept: rules.recall(root.signed, "timestamp", kept, Timestamp))

        def snapshot(data: bytes | None) -> Trusted[Snapshot] | None:
            return _unless_refused(data, lambda kept: rules.recall(root.signed, "snapshot", kept, Snapshot))

        complete = Recalled(timestamp(self._folder.read_timestamp(rules.MAX_TIMESTAMP_BYTES)), None)
        if complete.timestamp is not None:
            version = complete.timestamp.signed.snapshot_meta.version
            data = self._folder.read("snapshot", version, rules.MAX_SNAPSHOT_BYTES)
            complete = Recalled(complete.timestamp, snapshot(data))
        if not self._ahead:
            return complete, complete
        later = timestamp(self._folder.read_ahead("timestamp", rules.MAX_TIMESTAMP_BYTES))
        listed = snapshot(self._folder.read_ahead("snapshot", rules.MAX_SNAPSHOT_BYTES))
        return complete, Recalled(_newest(complete.timestamp, later), _newest(complete.snapshot, listed))

    async def _snapshot(
        self, root: Trusted[Root], timestamp: Trusted[Timestamp], kept: Trusted[Snapshot] | None, floor: RoleVersions
    ) -> Trusted[Snapshot]:
        def accept(data: bytes) -> Trusted[Snapshot]:
            return rules.accept_snapshot(root, timestamp, data, trusted=kept, floor=floor)

        reused = _unless_refused(kept.data if kept is not None else None, accept)
        if reused is not None:
            return reused
        announced = timestamp.signed.snapshot_meta
        limit = rules.announced_limit("snapshot", announced, rules.MAX_SNAPSHOT_BYTES)
        return accept(await self._fetch(wire_path(root, "snapshot", announced.version), limit))

    def _judge_time(self, trusted: Trusted[Timestamp] | Trusted[Snapshot]) -> None:
        try:
            rules.check_expiry(trusted, self._time)
        except ExpiredError:
            if self._strict_time and self._time - trusted.signed.expires > self._grace:
                raise
            self._stale.append(trusted)
        self.accepted.append(trusted)

    def _keep(self, state: State, *, targets: bool, snapshot: bool, timestamp: bool) -> None:
        if targets:
            self._folder.put("targets", state.targets.version, state.targets.data)
        if snapshot:
            self._folder.put("snapshot", state.snapshot.version, state.snapshot.data)
        if timestamp:
            self._folder.put_timestamp(state.timestamp.data)
        self._floor.raise_versions(self._name, state.versions, rules.issued_time(state.timestamp.signed, state.root.signed))
        if timestamp:
            self._folder.drop_ahead()
        if snapshot:
            listed = {name.removesuffix(".json"): meta.version for name, meta in state.snapshot.signed.meta.items()}
            self._folder.prune({**listed, "snapshot": state.snapshot.version})


def _differs(now: Trusted[T], before: Trusted[T] | None) -> bool:
    return before is None or now.data != before.data


def _newest(*found: Trusted[T] | None) -> Trusted[T] | None:
    return max((each for each in found if each is not None), key=lambda each: each.version, default=None)


def _unless_refused(data: bytes | None, judge: Callable[[bytes], _Result]) -> _Result | None:
    """What a kept file is judged to be; None if there is none, or if it no longer passes (then it is fetched again)."""
    if data is None:
        return None
    try:
        return judge(data)
    except TrustError:
        return None
