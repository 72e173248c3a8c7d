"""Orders and reports in hawkBit's words."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from node_agent.record import Report
from node_agent.reports import report_id
from node_agent.source import DdiSource, FileSource, Offer, feedback_of, offer_of
from node_agent.states import Outcome, State
from update.digest import Digest
from update.errors import BootloaderError, DeviceError, NotFoundError, UnreachableError
from update.wire.assignment import Assignment, Commit, Lost
from update.wire.ddi import Artifact, Chunk, DeploymentBase, DeploymentBody, Execution, Feedback, Finished, Handling, Hashes
from update.wire.ddi_client import DdiClient, Deployment, Poll

SHA = Digest("a" * 64)


def deployment(
    *, update: Handling = Handling.FORCED, commit: Commit = Commit.COMMIT, sha256: str = SHA, assigned: bool = True
) -> Deployment:
    chunk = Chunk(part="os", version="1", name="os", artifacts=(Artifact(filename="a", hashes=Hashes(sha256=sha256), size=9),))
    body = DeploymentBody(download=Handling.FORCED, update=update, chunks=(chunk,))
    assignment = Assignment("plant", "os.swu", SHA, 7, 3, commit) if assigned else None
    return Deployment(7, DeploymentBase(id="7", deployment=body), assignment)


def report(outcome: Outcome | None = None, *, state: State = State.REPORTING, answers: str = "") -> Report:
    return Report(id=report_id("x"), action="7", fence=3, state=state, outcome=outcome, answers=answers, message="why")


def test_a_deployment_is_an_order_for_the_assigned_target() -> None:
    assert offer_of(deployment()) == Offer("7", 3, "plant", "os.swu", SHA, 9)


def test_a_closed_window_means_download_only() -> None:
    assert not offer_of(deployment(update=Handling.SKIP)).may_write


@pytest.mark.parametrize("commit", Commit)
def test_an_order_says_how_far_to_go(commit: Commit) -> None:
    assert offer_of(deployment(commit=commit)) == Offer("7", 3, "plant", "os.swu", SHA, 9, commit=commit)


def test_an_order_says_how_long_a_trial_is_held_and_what_then() -> None:
    held = deployment(commit=Commit.HOLD)
    assert held.assignment is not None
    offer = offer_of(replace(held, assignment=replace(held.assignment, hold_s=600, lost=Lost.KEEP)))
    assert (offer.hold_s, offer.lost) == (600, Lost.KEEP)


def test_a_foreign_server_orders_nothing_that_could_be_resolved() -> None:
    assert offer_of(deployment(assigned=False)) == Offer("7")


def test_the_size_of_another_artifact_is_not_taken() -> None:
    assert offer_of(deployment(sha256="b" * 64)).length is None


@pytest.mark.parametrize(
    ("told", "execution", "finished"),
    [
        (report(state=State.FETCHING), Execution.DOWNLOAD, Finished.NONE),
        (report(state=State.PREPARED), Execution.PROCEEDING, Finished.NONE),
        (report(state=State.TESTING), Execution.PROCEEDING, Finished.NONE),
        (report(state=State.HOLDING), Execution.PROCEEDING, Finished.NONE),
        (report(Outcome.CONFIRMED), Execution.CLOSED, Finished.SUCCESS),
        (report(Outcome.ROLLED_BACK), Execution.CLOSED, Finished.FAILURE),
        (report(Outcome.REFUSED), Execution.CLOSED, Finished.FAILURE),
        (report(Outcome.FAILED), Execution.CLOSED, Finished.FAILURE),
        (report(Outcome.INCONSISTENT), Execution.CLOSED, Finished.FAILURE),
        (report(Outcome.CANCELLED), Execution.CANCELED, Finished.NONE),
        (report(Outcome.CANCELLED, answers="7"), Execution.CLOSED, Finished.SUCCESS),
        (report(Outcome.CONFIRMED, answers="7"), Execution.REJECTED, Finished.NONE),
    ],
)
def test_a_report_in_hawkbits_words(told: Report, execution: Execution, finished: Finished) -> None:
    status = feedback_of(told).status
    assert (status.execution, status.result.finished) == (execution, finished)


def test_a_report_keeps_its_id_and_our_own_words() -> None:
    own = feedback_of(report(Outcome.ROLLED_BACK)).fieldrelay
    assert own is not None
    assert (own.report, own.outcome, own.fence, own.message) == (UUID(report_id("x")), "rolled-back", 3, "why")


async def test_a_file_is_ordered_until_its_end_was_reported_and_takes_no_other_reports() -> None:
    source = FileSource(Path("a.swu"), "file-1", "because")
    order = await source.next()
    assert order == Offer("file-1", file=Path("a.swu"), reason="because")
    with pytest.raises(UnreachableError):
        await source.report(report(Outcome.CONFIRMED))
    await source.report(Report("1", "file-1", 0, State.WRITING))
    assert await source.next() == order
    await source.report(Report("2", "file-1", 0, State.REPORTING, outcome=Outcome.CONFIRMED))
    assert await source.next() is None


def test_a_report_says_how_far_it_is_twice_for_hawkbit_and_for_our_own() -> None:
    told = feedback_of(replace(report(state=State.WRITING), done=3, total=4))
    assert told.fieldrelay is not None
    assert told.status.result.progress is not None
    assert (told.fieldrelay.state, told.fieldrelay.done, told.fieldrelay.total) == ("writing", 3, 4)
    assert (told.status.result.progress.cnt, told.status.result.progress.of) == (3, 4)


@dataclass
class Talk:
    """A gateway that notes what is said, and a node whose facts the test changes."""

    facts: dict[str, str] = field(default_factory=lambda: {"slot": "a"})
    said: list[object] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)
    wanted: bool = False
    away: bool = False
    broken: DeviceError | None = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[DdiClient]:
        if self.away:
            raise UnreachableError("no answer")
        yield cast("DdiClient", self)

    async def attributes(self) -> Mapping[str, str]:
        if self.broken is not None:
            raise self.broken
        return dict(self.facts)

    async def poll(self) -> Poll:
        self.said.append("poll")
        return Poll(1, None, self.wanted)

    async def config_data(self, data: Mapping[str, str]) -> None:
        self.said.append(data)

    async def feedback(self, action: int, feedback: Feedback, *, cancel: bool) -> None:
        self.said.append((action, cancel))
        assert feedback.fieldrelay is not None
        self.proofs.append(feedback.fieldrelay.proof)


def source_of(talk: Talk) -> DdiSource:
    return DdiSource("n1", talk.connect, talk.attributes, lambda proof: f"proof for {proof.action}")


async def test_a_node_says_what_it_is_before_it_asks_for_work_and_once() -> None:
    talk = Talk()
    source = source_of(talk)
    await source.next()
    await source.next()
    assert talk.said == [{"slot": "a"}, "poll", "poll"]


@pytest.mark.parametrize("action", ["7", "operator-1"])
async def test_what_changed_is_told_with_the_end_of_an_action(action: str) -> None:
    talk = Talk()
    source = source_of(talk)
    await source.next()
    talk.facts = {"slot": "b"}
    talk.said.clear()
    end = replace(report(Outcome.ROLLED_BACK), action=action)
    if action.isdecimal():
        await source.report(end)
    else:
        with pytest.raises(NotFoundError):
            await source.report(end)
    assert talk.said == [*([(7, False)] if action.isdecimal() else []), {"slot": "b"}]
    talk.said.clear()
    await source.report(report(Outcome.CONFIRMED))
    await source.next()
    assert talk.said == [(7, False), "poll"], "nothing changed, nothing is told"


@pytest.mark.parametrize("outcome", [None, *Outcome])
async def test_only_what_was_confirmed_is_vouched_for(outcome: Outcome | None) -> None:
    talk = Talk()
    await source_of(talk).report(report(outcome) if outcome else report(state=State.WRITING))
    assert talk.proofs == (["proof for 7"] if outcome is Outcome.CONFIRMED else [""])


async def test_progress_of_an_action_tells_nothing_about_the_node() -> None:
    talk = Talk()
    source = source_of(talk)
    await source.report(report(state=State.WRITING))
    assert talk.said == [(7, False)]


async def test_what_could_not_be_told_is_told_at_the_next_poll() -> None:
    talk = Talk(away=True)
    source = source_of(talk)
    with pytest.raises(NotFoundError):
        await source.report(replace(report(Outcome.ROLLED_BACK), action="operator-1"))
    with pytest.raises(UnreachableError):
        await source.next()
    talk.away, talk.broken = False, BootloaderError("locked")
    await source.next()
    assert talk.said == ["poll"], "a device that cannot be asked just now still takes orders"
    talk.broken = None
    await source.next()
    assert talk.said == ["poll", {"slot": "a"}, "poll"]


async def test_a_gateway_that_asks_is_told_again() -> None:
    talk = Talk(wanted=True)
    source = source_of(talk)
    await source.next()
    assert talk.said == [{"slot": "a"}, "poll", {"slot": "a"}]
