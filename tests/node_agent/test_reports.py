"""Reports wait on disk, in order, at least once, and a result is never lost."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.record import Report
from node_agent.reports import Reports, report_id
from node_agent.states import Outcome, State
from update.durable import Disk
from update.errors import NotFoundError, UnauthorizedError, UnreachableError, WireError
from update.store.journal import Journal


def queue(folder: Path, limit: int = 200) -> Reports:
    return Reports(Journal(Disk(), folder / "reports.json"), now_ms=lambda: 1_700_000_000_000, limit=limit)


def progress(number: int, state: State = State.WRITING, action: str = "7") -> Report:
    return Report(id=f"p{number}", action=action, fence=1, state=state)


def result(number: int, action: str = "7") -> Report:
    return Report(id=f"r{number}", action=action, fence=1, state=State.REPORTING, outcome=Outcome.CONFIRMED)


class Receiver:
    """Takes reports, unless told to fail."""

    def __init__(self, failure: WireError | None = None) -> None:
        self.taken: list[Report] = []
        self.failure = failure

    async def __call__(self, report: Report) -> None:
        if self.failure is not None:
            raise self.failure
        self.taken.append(report)


async def test_reports_arrive_in_order_with_rising_numbers_and_leave_the_queue(tmp_path: Path) -> None:
    reports, receiver = queue(tmp_path), Receiver()
    reports.add(progress(1, State.FETCHING))
    reports.add(progress(2, State.WRITING))
    reports.add(result(3))
    await reports.deliver(receiver)
    assert [report.id for report in receiver.taken] == ["p1", "p2", "r3"]
    assert [report.sequence for report in receiver.taken] == [1, 2, 3]
    assert reports.waiting == ()


async def test_what_was_not_taken_is_sent_again_after_a_restart_under_the_same_id_and_number(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    reports.add(result(1))
    with pytest.raises(UnreachableError):
        await reports.deliver(Receiver(UnreachableError("gateway away")))
    again, receiver = queue(tmp_path), Receiver()
    await again.deliver(receiver)
    assert receiver.taken == [replace(result(1), sequence=1, time_ms=1_700_000_000_000)]


async def test_a_receiver_that_took_it_and_then_vanished_gets_it_twice_under_one_id(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    taken: list[Report] = []

    async def take_and_vanish(report: Report) -> None:
        taken.append(report)
        raise UnreachableError("the answer was lost")

    reports.add(result(1))
    with pytest.raises(UnreachableError):
        await reports.deliver(take_and_vanish)
    receiver = Receiver()
    await queue(tmp_path).deliver(receiver)
    assert taken == receiver.taken


async def test_a_report_for_an_action_that_the_receiver_does_not_know_is_dropped_and_the_next_one_sent(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    taken: list[str] = []

    async def only_actions_it_knows(report: Report) -> None:
        if report.action == "gone":
            raise NotFoundError("410")
        taken.append(report.id)

    reports.add(result(1, action="gone"))
    reports.add(result(2))
    await reports.deliver(only_actions_it_knows)
    assert taken == ["r2"]


async def test_a_refused_credential_keeps_the_report(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    reports.add(result(1))
    with pytest.raises(UnauthorizedError):
        await reports.deliver(Receiver(UnauthorizedError("401")))
    assert [report.id for report in queue(tmp_path).waiting] == ["r1"]


def test_the_same_report_is_not_queued_twice(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    reports.add(result(1))
    queue(tmp_path).add(result(1))
    assert len(queue(tmp_path).waiting) == 1


def test_newer_progress_of_a_state_replaces_what_was_not_sent(tmp_path: Path) -> None:
    reports = queue(tmp_path)
    reports.add(replace(progress(1), done=1))
    reports.add(replace(progress(2), done=2))
    assert [report.done for report in reports.waiting] == [2]


def test_a_full_queue_drops_the_oldest_progress_and_no_result(tmp_path: Path) -> None:
    reports = queue(tmp_path, limit=3)
    for number in range(4):
        reports.add(result(number, action=str(number)))
        reports.add(progress(10 + number, action=str(number)))
    assert [report.id for report in reports.waiting] == ["r0", "r1", "r2", "r3"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 10))
def test_results_survive_whatever_the_limit(tmp_path_factory: pytest.TempPathFactory, kinds: list[bool], limit: int) -> None:
    reports = queue(tmp_path_factory.mktemp("queue"), limit)
    for number, final in enumerate(kinds):
        reports.add(result(number, str(number)) if final else progress(number, action=str(number)))
    waiting = reports.waiting
    assert [report.id for report in waiting if report.final] == [f"r{number}" for number, final in enumerate(kinds) if final]
    assert len(waiting) <= max(limit, sum(kinds))
    assert [report.sequence for report in waiting] == sorted(report.sequence for report in waiting)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"body":{},"checksum":"x","format_version":1}'])
def test_a_damaged_queue_is_started_anew_with_higher_numbers(tmp_path: Path, damage: bytes) -> None:
    queue(tmp_path).add(result(1))
    (tmp_path / "reports.json").write_bytes(damage)
    reports = queue(tmp_path)
    assert not reports.waiting
    reports.add(result(2))
    assert [report.sequence >= 1_700_000_000_000 for report in reports.waiting] == [True]


def test_ids_are_stable_and_tell_apart_what_is_reported() -> None:
    assert report_id("n", "7", 1, "result") == report_id("n", "7", 1, "result")
    assert len({report_id("n", "7", 1, "result"), report_id("n", "71", "", "result"), report_id("m", "7", 1, "result")}) == 3
