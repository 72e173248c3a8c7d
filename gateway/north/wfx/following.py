"""Following what one wfx wants of one node.

1. One job at a time, the oldest that is open; one whose end is on its way there counts as ended.
2. What a job wants is fetched, proved, and admitted for this node before the node hears of it. Of a phased job that is the
   download: the node may install once the server has moved the job on. What is refused is told with its reason, once.
3. A job is only touched along its workflow. One of a workflow that is not configured here belongs to somebody else: it is left
   alone, and named. One that is configured and cannot be followed is refused.
4. A changed definition is another wish: it takes the place of the former one, in the same job.
5. An action of ours whose job was deleted, or has ended there without us, is withdrawn here.
6. What ended here and is open there was not understood there: its end is told again after a while.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.database.engine import Database
from gateway.database.queries import actions, outgoing
from gateway.database.records import Action, ActionState, Node
from gateway.fleet.issuing import Assignment, Verdict, Wish
from gateway.fleet.takeover import Takeover
from gateway.north.vouched import Obtained
from gateway.north.wfx.client import WfxClient
from gateway.north.wfx.meaning import Wanted, job_of, source_of, terms_of, wanted_of
from gateway.north.wfx.messages import Job
from gateway.north.wfx.obtain import Obtain
from gateway.north.wfx.telling import WfxTeller
from gateway.north.wfx.workflow import Phase, State, can_be_followed, phase_of
from update.errors import (
    AssignerError,
    BundleError,
    FieldrelayError,
    NotFoundError,
    ProtocolError,
    TrustError,
    UnknownNodeError,
    UnsupportedError,
)

_LOG = logging.getLogger(__name__)
_TRIES = 3
"""A bundle that is not where a job says may still be on its way there; not for ever."""
_AGAIN = timedelta(hours=1)
_MOST_NAMED = 100
"""Workflows that are named in the log; a server may have any number."""
_LIVE = frozenset({Phase.DOWNLOAD, Phase.WAIT, Phase.INSTALL})


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its name as an assigner, how to ask it, what tells it, and which workflows it may use."""

    assigner: str
    client: WfxClient
    obtain: Obtain
    teller: WfxTeller
    workflows: Collection[str]


class Following:
    """Does for a node what its open jobs say."""

    def __init__(self, database: Database, takeover: Takeover, server: Server, now: Callable[[], datetime]) -> None:
        self._database = database
        self._takeover = takeover
        self._server = server
        self._now = now
        self._absent: dict[tuple[str, str], int] = {}
        self._foreign: set[str] = set()

    async def follow(self, node: Node, client: str, jobs: Sequence[Job]) -> None:
        """Act on them. Errors: those of the server, `StoreError`; what was not done is done at the next poll."""
        await self._check_absent(node, client, {job.id for job in jobs})
        for job in jobs:
            if self._is_ours(job) and not await self._has_ended(node, job):
                await self._want(node, client, job)
                return

    def _is_ours(self, job: Job) -> bool:
        """Rule 3."""
        name = "" if job.workflow is None else job.workflow.name
        if name in self._server.workflows:
            return True
        if name not in self._foreign and len(self._foreign) < _MOST_NAMED:
            self._foreign.add(name)
            _LOG.warning("%s: jobs of workflow %r are left alone; it is not among its workflows", self._server.assigner, name)
        return False

    async def _has_ended(self, node: Node, job: Job) -> bool:
        """Whether nothing is left to do but to wait for the server to know it (rule 6)."""
        source = source_of(job)
        known = await self._takeover.known(node.id, self._server.assigner, source)
        async with self._database.reading() as transaction:
            told = [each for each in await outgoing.of_action(transaction, self._server.assigner, node.id, source) if each.final]
        if not told and (known is None or known.end is None):
            return False
        if told and (told[-1].delivered is None or self._now() < told[-1].delivered + _AGAIN):
            return True
        body: Mapping[str, object] | None = told[-1].body if told else None
        if body is None and known is not None:
            body = self._server.teller.end_of(known)
        if body is not None:
            async with self._database.writing() as transaction:
                await self._server.teller.repeated(transaction, node.id, source, body)
        return True

    async def _want(self, node: Node, client: str, job: Job) -> None:
        source, phase = source_of(job), phase_of(job.status.state)
        known = await self._takeover.known(node.id, self._server.assigner, source)
        if known is not None:
            if phase in _LIVE:
                await self._takeover.change_terms(node.id, self._server.assigner, source, terms_of(phase))
            return
        try:
            self._check_workflow(job, phase)
            if phase in _LIVE:
                await self._take(node, client, job, source, phase)
        except (AssignerError, BundleError, TrustError, UnknownNodeError) as error:
            await self._refuse(node, source, error)
        except _RefusedError as error:
            await self._refuse(node, source, error.why)

    def _check_workflow(self, job: Job, phase: Phase | None) -> None:
        name = "" if job.workflow is None else job.workflow.name
        if phase is None:
            raise UnsupportedError(f"{job.status.state} of workflow {name} is no state of a device artifact update")
        if job.workflow is None or not can_be_followed(job.workflow):
            raise UnsupportedError(f"workflow {name} does not lead a client through a device artifact update")

    async def _take(self, node: Node, client: str, job: Job, source: str, phase: Phase) -> None:
        wanted = _read(job)
        if phase is Phase.DOWNLOAD:
            await self._reached(node, source, State.DOWNLOADING)
        obtained = await self._obtain(node, client, source, wanted)
        wish = Wish(
            obtained.release,
            requested_by=self._server.assigner,
            assigner=self._server.assigner,
            source=source,
            terms=terms_of(phase),
        )
        made = await self._takeover.take(node.id, wish, hardware=obtained.hardware)
        if phase is Phase.DOWNLOAD:
            await self._reached(node, source, State.DOWNLOADED)
        await self._settle(node, source, phase, made)

    async def _obtain(self, node: Node, client: str, source: str, wanted: Wanted) -> Obtained:
        try:
            obtained = await self._server.obtain.bundle(client, wanted)
        except (NotFoundError, ProtocolError) as error:
            tries = self._absent[node.id, source] = self._absent.get((node.id, source), 0) + 1
            if tries < _TRIES:
                raise
            del self._absent[node.id, source]
            raise _RefusedError(ProtocolError(f"{error} (asked {tries} times)")) from error
        self._absent.pop((node.id, source), None)
        return obtained

    async def _settle(self, node: Node, source: str, phase: Phase, made: Assignment) -> None:
        """Tell at once what needs no node."""
        if made.verdict is Verdict.ORDERED:
            _LOG.info("%s wants %s on %s", self._server.assigner, made.release.path, node.id)
        elif made.verdict is Verdict.ALREADY_RUNNING and phase is Phase.INSTALL:
            await self._conclude(node, source, State.ACTIVATED, f"{made.release.path} runs already")

    async def _refuse(self, node: Node, source: str, error: FieldrelayError) -> None:
        _LOG.warning("%s: job %s for %s is refused: %s (%s)", self._server.assigner, job_of(source), node.id, error, error.code)
        await self._conclude(node, source, State.TERMINATED, f"{error.code}: {error}")

    async def _check_absent(self, node: Node, client: str, listed: Collection[str]) -> None:
        """Rule 5."""
        async with self._database.reading() as transaction:
            unfinished = await actions.unfinished(transaction, node.id)
        for action in unfinished:
            own = action.assigner == self._server.assigner and action.state is not ActionState.CANCELLING
            if own and job_of(action.source) not in listed and (words := await self._why_absent(client, action)):
                await self._takeover.withdraw(node.id, self._server.assigner, action.source, words)

    async def _why_absent(self, client: str, action: Action) -> str:
        """Why nothing is wanted any more; empty while something is."""
        try:
            job = await self._server.client.job(client, job_of(action.source))
        except NotFoundError:
            return f"{self._server.assigner} has deleted the job"
        return f"the job was taken to {job.status.state}" if phase_of(job.status.state) is Phase.OVER else ""

    async def _reached(self, node: Node, source: str, state: State) -> None:
        async with self._database.writing() as transaction:
            await self._server.teller.reached(transaction, node.id, source, state)

    async def _conclude(self, node: Node, source: str, state: State, words: str) -> None:
        async with self._database.writing() as transaction:
            await self._server.teller.concluded(transaction, node.id, source, state=state, words=words)


class _RefusedError(Exception):
    """A job that wants nothing usable, and `why`; never leaves this module."""

    def __init__(self, why: FieldrelayError) -> None:
        super().__init__(str(why))
        self.why = why


def _read(job: Job) -> Wanted:
    try:
        return wanted_of(job)
    except ProtocolError as error:  # of the definition: asking again would bring the same
        raise _RefusedError(error) from error
