"""Orders and reports in hawkBit's words."""

from pathlib import Path
from uuid import UUID

import pytest

from node_agent.record import Report
from node_agent.reports import report_id
from node_agent.source import FileSource, Offer, feedback_of, offer_of
from node_agent.states import Outcome, State
from update.digest import Digest
from update.errors import UnreachableError
from update.wire.assignment import Assignment, Commit
from update.wire.ddi import Artifact, Chunk, DeploymentBase, DeploymentBody, Execution, Finished, Handling, Hashes
from update.wire.ddi_client import Deployment

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


@pytest.mark.parametrize("commit", [Commit.HOLD, Commit.ABORT])
def test_anything_but_a_plain_commit_is_marked(commit: Commit) -> None:
    assert offer_of(deployment(commit=commit)).hold


def test_a_foreign_server_orders_nothing_that_could_be_resolved() -> None:
    assert offer_of(deployment(assigned=False)) == Offer("7")


def test_the_size_of_another_artifact_is_not_taken() -> None:
    assert offer_of(deployment(sha256="b" * 64)).length is None


@pytest.mark.parametrize(
    ("told", "execution", "finished"),
    [
        (report(state=State.FETCHING), Execution.DOWNLOAD, Finished.NONE),
        (report(state=State.TESTING), Execution.PROCEEDING, Finished.NONE),
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
