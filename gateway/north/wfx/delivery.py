"""Telling wfx what was stored for it (`north.outbox`): step by step along its workflow, with exactly one end.

1. Before every step the job is read: what it has reached already is not said again, whoever took it there, and an answer that was
   not seen costs nothing. A state that it has passed is not gone back to.
2. Only steps that are the client's are taken. Where the way leads over one of the server's, the message waits.
3. The end of a job is said once: wfx would take another one, and have it in its history.
4. A job that was deleted needs to hear nothing more.
"""

import random
from collections.abc import Callable
from datetime import datetime

from gateway.database.engine import Database
from gateway.database.records import Outgoing
from gateway.north.outbox import Delivered, Later, Outbox
from gateway.north.wfx.client import WfxClient
from gateway.north.wfx.meaning import job_of
from gateway.north.wfx.messages import Job, JobStatus, Workflow
from gateway.north.wfx.telling import status_of
from gateway.north.wfx.workflow import Turn, next_move
from update.errors import FieldrelayError, ProtocolError, UnreachableError

_MOST_STEPS = 32
_WAIT_S = 60.0


class Delivery:
    """Delivers to one server. `client_id` gives the client id of a node."""

    def __init__(
        self,
        database: Database,
        client: WfxClient,
        upstream: str,
        now: Callable[[], datetime],
        *,
        client_id: Callable[[str], str],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._client_id = client_id
        self._outbox = Outbox(database, upstream, now, self._tell, chance=chance, group=_job)

    async def deliver(self) -> Delivered:
        """Send what is due. Errors: `StoreError`; those of the server are in the answer."""
        return await self._outbox.deliver()

    async def run(self, note: Callable[[FieldrelayError], None]) -> None:
        """Send for ever; `note` is told of trouble."""
        await self._outbox.run(note)

    async def _tell(self, message: Outgoing) -> str | Later:
        client, told = self._client_id(message.node), status_of(message.body)
        job = await self._read(client, _job(message))
        for _ in range(_MOST_STEPS):
            move = next_move(_workflow(job), job.status.state, told.state)
            match move.turn:
                case Turn.PASSED:
                    return f"the job is in {job.status.state} and was not taken back"
                case Turn.THEIRS:
                    return Later(f"from {job.status.state} the server must go on", _WAIT_S)
                case Turn.THERE:
                    return await self._renew(client, job, told, final=message.final)
                case Turn.OURS:
                    last = move.state == told.state
                    job, taken = await self._step(client, job, told if last else JobStatus(state=move.state))
                    if last and taken:
                        return ""
        raise ProtocolError(f"the workflow leads from {job.status.state} nowhere near {told.state}")

    async def _read(self, client: str, job: str) -> Job:
        try:
            return await self._client.job(client, job)
        except ProtocolError as error:  # no reason to give up what is to be told
            raise UnreachableError(f"job {job} cannot be read there: {error}") from error

    async def _step(self, client: str, job: Job, status: JobStatus) -> tuple[Job, bool]:
        """Take one step; the job after it, and whether it was we who took it: somebody may have moved it meanwhile."""
        try:
            reached = await self._client.set_status(client, job.id, status)
        except ProtocolError:
            now = await self._read(client, job.id)
            if now.status.state == job.status.state:
                raise
            return now, False
        return job.model_copy(update={"status": reached}), True

    async def _renew(self, client: str, job: Job, told: JobStatus, *, final: bool) -> str:
        """Say more in a state that the job is in (rule 3)."""
        now = job.status
        if final:
            return f"the job was in {now.state} already"
        if (now.message, now.progress or 0) == (told.message, told.progress or 0):
            return "it had arrived before"
        await self._client.set_status(client, job.id, told)
        return ""


def _workflow(job: Job) -> Workflow:
    if job.workflow is None:
        raise UnreachableError(f"the server says nothing of the workflow of job {job.id}")
    return job.workflow


def _job(message: Outgoing) -> str:
    return job_of(message.source)
