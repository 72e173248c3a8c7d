"""Where orders come from and where reports go: an assigner behind DDI, or a file that somebody put in front of the agent.

An order is a *hint*: it says which target shall run, and the agent resolves that target in its own verified metadata. It
never says what to trust. `fence` is the assigner's lease number; an order of an older lease is refused.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from node_agent.record import Report
from node_agent.states import Outcome, State
from update.digest import Digest
from update.errors import DeviceError, EndlessDataError, NotFoundError, ProtocolError, UnreachableError, WireError
from update.wire import ddi
from update.wire.assignment import Commit, Lost
from update.wire.boot_proof import BootProof, boot_id
from update.wire.ddi import Execution, Feedback, Finished, Handling
from update.wire.ddi_client import Cancellation, DdiClient, Deployment

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """An order to run something: a target of a repository, or a local `file`. `length` is in bytes, None if not said.

    `fence` is None where there is no lease: an operator at the device. `reason` is an operator's, who wants an older release
    back. `may_write` is False while the assigner wants it only downloaded (a maintenance window is closed). `commit` says how
    far to go; the same order comes again with another one when that was decided for all devices that are updated together.
    `hold_s` and `lost`: for how many seconds a trial is held without such an order (0: without limit), and what then.
    """

    action: str
    fence: int | None = None
    repository: str = ""
    target: str = ""
    sha256: Digest | None = None
    length: int | None = None
    file: Path | None = None
    reason: str = ""
    may_write: bool = True
    commit: Commit = Commit.COMMIT
    hold_s: int = 0
    lost: Lost = Lost.REVERT


@dataclass(frozen=True, slots=True)
class Cancel:
    """The order to stop `action`; `id` is the cancellation's own name, which the answer repeats."""

    action: str
    id: str


class Source(Protocol):
    """An assigner."""

    async def next(self) -> Offer | Cancel | None:
        """The one order that counts now; the same one again until it was reported as ended. Errors: `WireError`."""
        ...

    async def report(self, report: Report) -> None:
        """Tell the assigner; called again with the same `id` after a crash. Errors: `WireError`."""
        ...


class FileSource:
    """`update install FILE`: one order, once. Reports of other actions wait for the assigner that they are for."""

    def __init__(self, file: Path, action: str, reason: str = "") -> None:
        self._action = action
        self._order: Offer | None = Offer(action=action, file=file, reason=reason)

    async def next(self) -> Offer | None:
        """The file, until its end was reported."""
        return self._order

    async def report(self, report: Report) -> None:
        """Forget the order when it has ended."""
        if report.action != self._action:
            raise UnreachableError(f"the report of action {report.action} waits until `update agent` or `update --now` runs")
        if report.final:
            self._order = None


Client = Callable[[], AbstractAsyncContextManager[DdiClient]]
"""A DDI client at a gateway that was just found to be ours; `node_agent.link.Link.controller`."""

Attributes = Callable[[], Awaitable[Mapping[str, str]]]
"""What the node says of itself when it is asked."""


Prove = Callable[[BootProof], str]
"""Signs what runs here with the node's key. `DeviceError` or `StoreError` where it cannot."""


class DdiSource:
    """The gateway's DDI resource of this node. `node` is its name, `prove` vouches for what it has confirmed.

    What the node says of itself can have changed after a start and when an action has ended, and only then. It is sent at
    the next contact, before any work is asked for: orders are aimed by it.
    """

    def __init__(self, node: str, client: Client, attributes: Attributes, prove: Prove) -> None:
        self._node = node
        self._prove = prove
        self._client = client
        self._attributes = attributes
        self._sent: Mapping[str, str] = {}
        self._may_differ = True
        self.interval_s: float | None = None

    async def next(self) -> Offer | Cancel | None:
        """Poll; how soon the gateway wants to be asked again is `interval_s` afterwards."""
        try:
            async with self._client() as client:
                await self._describe(client)
                poll = await client.poll()
                self.interval_s = poll.sleep_s
                if poll.attributes_wanted:
                    await client.config_data(await self._attributes())
        except EndlessDataError as error:
            raise ProtocolError("the gateway answers a poll with more than any order takes") from error
        match poll.task:
            case None:
                return None
            case Cancellation(action, stop):
                return Cancel(action=stop, id=str(action))
            case Deployment():
                return offer_of(poll.task)

    async def report(self, report: Report) -> None:
        """Send one report; `NotFoundError` for one that the gateway has no action for, which is then dropped."""
        number = report.answers or report.action
        self._may_differ = self._may_differ or report.final
        if number.isdecimal():
            async with self._client() as client:
                await client.feedback(int(number), self._feedback(report, int(number)), cancel=bool(report.answers))
        if report.final:
            await self._describe_if_possible()
        if not number.isdecimal():
            raise NotFoundError(f"action {report.action} was begun on this node, the assigner has no number for it")

    def _feedback(self, report: Report, action: int) -> Feedback:
        """The report as it is sent: a confirmed update with the proof that it runs."""
        said = feedback_of(report)
        if report.outcome is not Outcome.CONFIRMED or said.fieldrelay is None:
            return said
        here = boot_id()
        proof = BootProof(self._node, action, report.fence, report.version, report.slot, report.slot_sha256, here)
        proved = said.fieldrelay.model_copy(update={"boot_id": here, "proof": self._prove(proof)})
        return said.model_copy(update={"fieldrelay": proved})

    async def _describe(self, client: DdiClient) -> None:
        """Send what the node says of itself, where that may differ from what was sent last and does."""
        if not self._may_differ:
            return
        try:
            said = await self._attributes()
        except DeviceError as error:
            _LOG.warning("cannot tell what runs here: %s (%s)", error, error.code)
            return
        if said != self._sent:
            await client.config_data(said)
        self._sent, self._may_differ = said, False

    async def _describe_if_possible(self) -> None:
        """The same, where a failure must not count against a report that was taken: the next poll tries again."""
        try:
            async with self._client() as client:
                await self._describe(client)
        except WireError as error:
            _LOG.info("what runs here is told at the next poll: %s (%s)", error, error.code)


def offer_of(deployment: Deployment) -> Offer:
    """The order that a deployment means; without an assignment there is nothing that could be resolved, and so be it."""
    body, assignment = deployment.document.deployment, deployment.assignment
    may_write = body.update is not Handling.SKIP
    action = str(deployment.action)
    if assignment is None:
        return Offer(action=action, may_write=may_write)
    artifacts = [artifact for chunk in body.chunks for artifact in chunk.artifacts]
    named = [artifact.size for artifact in artifacts if artifact.hashes.sha256 == assignment.sha256]
    return Offer(
        action=action,
        fence=assignment.fence,
        repository=assignment.repository,
        target=assignment.target,
        sha256=assignment.sha256,
        length=named[0] if named else None,
        may_write=may_write,
        commit=assignment.commit,
        hold_s=assignment.hold_s,
        lost=assignment.lost,
    )


def feedback_of(report: Report) -> Feedback:
    """A report in hawkBit's words, and in our own beside them."""
    execution, finished = _words(report)
    progress = ddi.Progress(cnt=report.done, of=report.total) if report.total else None
    return Feedback(
        timestamp=report.time_ms,
        status=ddi.Status(
            execution=execution,
            result=ddi.Result(finished=finished, progress=progress),
            details=(f"{report.state}: {report.message}" if report.message else str(report.state),),
        ),
        fieldrelay=ddi.Report(
            report=UUID(report.id),
            sequence=report.sequence,
            fence=report.fence,
            state=report.state,
            outcome=report.outcome or "",
            version=report.version,
            slot=report.slot,
            slot_sha256=report.slot_sha256,
            downloaded_bytes=report.downloaded_bytes,
            reused_bytes=report.reused_bytes,
            done=report.done,
            total=report.total,
            code=report.code,
            message=report.message,
        ),
    )


def _words(report: Report) -> tuple[Execution, Finished]:
    """`execution` and `finished` (hawkBit DDI): a cancellation that came too late is rejected, never failed."""
    if report.answers:
        cancelled = report.outcome is Outcome.CANCELLED
        return (Execution.CLOSED, Finished.SUCCESS) if cancelled else (Execution.REJECTED, Finished.NONE)
    match report.outcome:
        case None:
            return (Execution.DOWNLOAD if report.state is State.FETCHING else Execution.PROCEEDING), Finished.NONE
        case Outcome.CONFIRMED:
            return Execution.CLOSED, Finished.SUCCESS
        case Outcome.CANCELLED:
            return Execution.CANCELED, Finished.NONE
        case _:
            return Execution.CLOSED, Finished.FAILURE
