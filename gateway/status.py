"""The gateway's state in one value: what runs on the nodes and what is wanted, the repositories, the store, the routes.

Two facts stand side by side for every node, never merged: what it *runs* by its own word, and what is *wanted* on it. A node
is `late` when it missed three of its polls.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Protocol

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes, reports
from gateway.database.records import Action, ActionState, Node, ReportRecord, Running
from gateway.fleet.catalogue import AssignerState, Repositories, RepositoryState
from gateway.fleet.intervals import Intervals
from gateway.fleet.release_states import ReleaseState
from gateway.words import share
from update.trust.verified import Provenance

_MISSED_POLLS = 3
_MAX_STATE = 32
_INSTALLED = "installed, not yet verified"


@dataclass(frozen=True, slots=True)
class StoreState:
    """Bytes used by content, bytes free on its disk, and the configured quota (0: none).

    `damaged`: contents and chunks that were found damaged on disk since the start; they are fetched again.
    """

    used_bytes: int
    free_bytes: int
    quota_bytes: int
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class RouteState:
    """One mirrored route. `stale_answers` since start; `trouble`: why its upstream was last found away, empty when it is not.

    `served` is false where the plain listener, which alone would answer, is switched off.
    """

    name: str
    kind: str
    upstream: str
    objects: int
    used_bytes: int
    quota_bytes: int
    revalidate_s: int
    stale_if_error_s: int
    stale_answers: int
    trouble: str
    served: bool = True


@dataclass(frozen=True, slots=True)
class PrefetchState:
    """One image that is fetched before it is asked for: stored bytes that are wanted, and those of them that are here.

    `nodes` are those that it was counted for; `unknown` more are left to on demand, since what they have is not known here.
    """

    repository: str
    path: str
    mode: str
    wanted_bytes: int
    done_bytes: int
    nodes: int
    unknown: int
    code: str
    problem: str


class StoreSize(Protocol):
    """What tells how full the store is."""

    async def state(self) -> StoreState:
        """Measure now; may walk a folder, so it does not run in the event loop."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the newest action of a node wants, and how that stands; `outcome` empty while it is under way.

    `provenance` is whose word the release goes by, `installed` when the node said that it had installed it: until it is seen
    to run, that is no success. `report` is what the node's agent last told about it: its slot, bytes downloaded and so on.
    """

    action: int
    repository: str
    path: str
    version: str
    since: datetime
    state: str
    reason: str
    outcome: str
    code: str
    message: str
    report: Mapping[str, object] = field(default_factory=dict)
    provenance: Provenance = Provenance.TUF
    installed: datetime | None = None

    @property
    def standing(self) -> str:
        """How it stands, in a few words: its end, or what the agent says that it does, or that nothing was heard yet."""
        if not self.outcome and self.installed is not None:
            return _INSTALLED
        state, done, total = (self.report.get(name) for name in ("state", "done", "total"))
        if self.outcome or self.state != ActionState.OPEN or not isinstance(state, str) or not state:
            return self.outcome or self.state
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            return f"{state[:_MAX_STATE]} {share(done, total)}"
        return state[:_MAX_STATE]


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node; `wanted` is None if nothing was ever ordered for it. `accepts` is the weakest provenance that it is offered.

    `attached`: of a device whose agent runs in the gateway, how that agent is; else empty.
    """

    id: str
    kind: str
    assigner: str
    hardware: str
    running: Running
    wanted: Wanted | None
    attributes: Mapping[str, str]
    first_seen: datetime
    last_seen: datetime
    late: bool
    accepts: Provenance = Provenance.TUF
    attached: str = ""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """Everything that `fieldrelay gateway status` shows."""

    name: str
    version: str
    now: datetime
    started: datetime
    nodes: tuple[NodeState, ...]
    repositories: tuple[RepositoryState, ...]
    store: StoreState
    routes: tuple[RouteState, ...] = ()
    assigners: tuple[AssignerState, ...] = ()
    prefetch: tuple[PrefetchState, ...] = ()
    releases: tuple[ReleaseState, ...] = ()


async def _nobody() -> tuple[AssignerState, ...]:
    """Everything is assigned here."""
    return ()


async def _none_released() -> tuple[ReleaseState, ...]:
    """No coordinated release."""
    return ()


class Status:
    """Puts the state together. `name` and `version` are this gateway's; `intervals` decide who is late.

    `last_seen` knows it better than the database, where it is written only from time to time.
    """

    def __init__(
        self,
        database: Database,
        repositories: Repositories,
        store: StoreSize,
        *,
        now: Callable[[], datetime],
        name: str,
        version: str,
        intervals: Intervals,
        routes: Callable[[], Sequence[RouteState]] = tuple,
        assigners: Callable[[], Awaitable[tuple[AssignerState, ...]]] = _nobody,
        prefetch: Callable[[], Sequence[PrefetchState]] = tuple,
        last_seen: Callable[[Node], datetime] = attrgetter("last_seen"),
        attached: Callable[[], Mapping[str, str]] = dict,
        releases: Callable[[], Awaitable[tuple[ReleaseState, ...]]] = _none_released,
    ) -> None:
        self._database = database
        self._repositories = repositories
        self._store = store
        self._now = now
        self._name = name
        self._version = version
        self._intervals = intervals
        self._started = now()
        self._routes = routes
        self._assigners = assigners
        self._prefetch = prefetch
        self._last_seen = last_seen
        self._attached = attached
        self._releases = releases

    async def gateway(self) -> GatewayState:
        """The state of everything, now."""
        return GatewayState(
            name=self._name,
            version=self._version,
            now=self._now(),
            started=self._started,
            nodes=await self.nodes(),
            repositories=tuple(self._repositories.states()),
            store=await self._store.state(),
            routes=tuple(self._routes()),
            assigners=await self._assigners(),
            prefetch=tuple(self._prefetch()),
            releases=await self._releases(),
        )

    async def nodes(self) -> tuple[NodeState, ...]:
        """The state of every node, by name, from one consistent view of the database."""
        async with self._database.reading() as transaction:
            everyone, newest = await nodes.everyone(transaction), await actions.latest(transaction)
            told = await reports.latest(transaction)
        attached = self._attached()
        return tuple(self._node(node, newest.get(node.id), told, attached) for node in everyone)

    def _node(
        self, node: Node, action: Action | None, told: Mapping[int, ReportRecord], attached: Mapping[str, str]
    ) -> NodeState:
        last_seen = self._last_seen(node)
        return NodeState(
            id=node.id,
            kind=node.kind,
            assigner=node.assigner,
            hardware="" if node.hardware is None else str(node.hardware),
            running=node.running,
            wanted=None if action is None else _wanted(action, told.get(action.id)),
            attributes=node.attributes,
            first_seen=node.first_seen,
            last_seen=last_seen,
            late=self._now() - last_seen > timedelta(seconds=_MISSED_POLLS * self._intervals.of(node.id)),
            accepts=node.accepts,
            attached=attached.get(node.id, ""),
        )


def _wanted(action: Action, told: ReportRecord | None) -> Wanted:
    return Wanted(
        action=action.id,
        repository=action.release.repository,
        path=action.release.path,
        version=action.release.version,
        since=action.created,
        state=action.state,
        reason=action.reason,
        outcome="" if action.end is None else action.end.outcome,
        code="" if action.end is None else action.end.code,
        message="" if action.end is None else action.end.message,
        report={} if told is None or told.body is None else told.body,
        provenance=action.release.provenance,
        installed=action.installed,
    )
