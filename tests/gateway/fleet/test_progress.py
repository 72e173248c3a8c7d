import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from gateway.database.engine import Database
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, Node, Running
from gateway.fleet.judgement import Told
from gateway.fleet.nodes import Assigner, Order
from gateway.fleet.progress import Progress
from tests.builders.fleet import Clock, Shelf, bundle, register, reports_about
from update.digest import Digest, digest_of
from update.errors import ForbiddenError, NotFoundError, ProtocolError
from update.identity import Hardware
from update.wire.attributes import HARDWARE, NodeFacts
from update.wire.ddi import Execution, Finished, Mode

PRINT = digest_of(b"certificate")
Ordering = Callable[..., Awaitable[Action]]


def told(execution: str, finished: str = "none", *, outcome: str = "", code: str = "", message: str = "") -> Told:
    report, known, ended = str(uuid.uuid4()), Execution(execution), Finished(finished)
    said = outcome or ("confirmed" if finished == "success" else "")
    return Told(report, known, ended, outcome=said, code=code, message=message, proven=True)


@pytest.fixture
def progress(database: Database, clock: Clock) -> Progress:
    return Progress(database, clock)


@pytest.fixture
async def ordered(database: Database, shelf: Shelf, clock: Clock) -> Ordering:
    await register(database, clock, "n1", "n2")

    async def order(release: str = "1.2", node: str = "n1") -> Action:
        wanted = Order(release=release, nodes=(node,), requested_by="uid 0")
        (made,) = await Assigner(database, shelf, clock).assign(wanted)
        assert made.action is not None
        return made.action

    return order


async def find(database: Database, action: Action) -> Action:
    async with database.reading() as transaction:
        found = await actions.find(transaction, action.id)
    assert found is not None
    return found


async def test_a_new_node_is_registered_at_its_first_contact(database: Database, clock: Clock, progress: Progress) -> None:
    contact = await progress.contact("n9", PRINT)
    assert (contact.node.id, contact.node.attributes_wanted, contact.action) == ("n9", True, None)
    clock.advance(5)
    again = await progress.contact("n9", digest_of(b"renewed"))
    assert (again.node.first_seen, again.node.last_seen) == (contact.node.first_seen, clock())
    assert again.node.fingerprint == digest_of(b"renewed")


async def test_a_contact_that_brings_no_news_writes_nothing(
    database: Database, clock: Clock, progress: Progress, ordered: Ordering
) -> None:
    action = await ordered()
    await progress.contact("n9", PRINT)
    writings = list[None]()
    database.watch(lambda: writings.append(None))
    for seconds in range(3):
        clock.advance(seconds)
        assert (await progress.contact("n9", PRINT)).node.last_seen == clock()
    assert not writings
    await progress.contact("n9", digest_of(b"renewed"))
    assert len(writings) == 1
    for _ in range(3):
        assert (await progress.offer("n1", action.id)).id == action.id
    assert len(writings) == 2


async def test_attributes_that_are_known_are_written_only_where_they_are_asked_for(
    database: Database, clock: Clock, progress: Progress
) -> None:
    await progress.contact("n9", PRINT)
    writings = list[None]()
    database.watch(lambda: writings.append(None))

    async def written(mode: Mode, fingerprint: Digest = PRINT, **data: str) -> int:
        writings.clear()
        await progress.describe("n9", fingerprint, mode, data)
        return len(writings)

    assert await written(Mode.REPLACE) == 1  # nothing at all, but it was asked for
    assert [await written(Mode.REPLACE, rack="7") for _ in range(2)] == [1, 0]
    assert [await written(Mode.MERGE, rack="7"), await written(Mode.REMOVE, shelf="")] == [0, 0]
    assert [await written(Mode.MERGE, rack="8"), await written(Mode.REMOVE, rack="")] == [1, 1]
    assert await written(Mode.REPLACE, digest_of(b"renewed")) == 1
    async with database.writing() as transaction:
        await nodes.ask_attributes(transaction, "n9")
    assert await written(Mode.REPLACE, digest_of(b"renewed")) == 1
    assert (await progress.standing("n9")).node.attributes_wanted is False


async def test_who_comes_first_and_who_comes_anew_is_durable_before_it_is_answered(
    database: Database, clock: Clock, progress: Progress
) -> None:
    for print_ in (PRINT, digest_of(b"renewed")):
        await progress.contact("n9", print_)
        async with database.reading() as transaction:
            found = await nodes.find(transaction, "n9")
        assert found is not None
        assert (found.fingerprint, found.first_seen) == (print_, clock())


async def test_a_node_is_told_of_its_own_open_action(progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    assert (await progress.contact("n1", PRINT)).action == action
    assert (await progress.contact("n2", PRINT)).action is None


async def test_taking_the_offer_is_noted(database: Database, clock: Clock, progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    assert (await find(database, action)).offered is None
    await progress.offer("n1", action.id)
    assert (await find(database, action)).offered == clock()


async def test_a_superseded_action_is_settled_before_its_successor_is_offered(
    database: Database, progress: Progress, ordered: Ordering
) -> None:
    old = await ordered("1.1")
    await progress.offer("n1", old.id)
    new = await ordered("1.2")
    due = (await progress.contact("n1", PRINT)).action
    assert due is not None
    assert (due.id, due.state) == (old.id, ActionState.CANCELLING)
    assert (await progress.cancellation("n1", old.id)).superseded_by == new.id
    for action in (old, new):
        with pytest.raises(NotFoundError, match="poll again"):
            await progress.offer("n1", action.id)
    await progress.cancel_feedback("n1", old.id, told("closed", "success"))
    end = (await find(database, old)).end
    assert end is not None
    assert end.outcome is ActionOutcome.SUPERSEDED
    assert (await progress.contact("n1", PRINT)).action == new
    await progress.offer("n1", new.id)


async def test_a_cancellation_that_the_node_rejects_lets_the_action_end_by_itself(
    database: Database, progress: Progress, ordered: Ordering
) -> None:
    old = await ordered("1.1")
    await progress.offer("n1", old.id)
    new = await ordered("1.2")
    await progress.cancel_feedback("n1", old.id, told("rejected"))
    due = (await progress.contact("n1", PRINT)).action
    assert due is not None
    assert (due.id, due.state) == (old.id, ActionState.OPEN)
    await progress.feedback("n1", old.id, told("closed", "success"))
    end = (await find(database, old)).end
    assert end is not None
    assert end.outcome is ActionOutcome.SUCCESS
    assert (await progress.contact("n1", PRINT)).action == new


async def test_an_end_that_comes_while_the_action_is_being_cancelled_is_the_truth(
    database: Database, progress: Progress, ordered: Ordering
) -> None:
    old = await ordered("1.1")
    await progress.offer("n1", old.id)
    await ordered("1.2")
    await progress.feedback("n1", old.id, told("closed", "success", outcome="confirmed"))
    await progress.cancel_feedback("n1", old.id, told("closed", "success"))
    end = (await find(database, old)).end
    assert end is not None
    assert end.outcome is ActionOutcome.SUCCESS


async def test_an_end_is_booked_once_with_its_code_and_words(
    database: Database, clock: Clock, progress: Progress, ordered: Ordering
) -> None:
    action = await ordered()
    failed = told("closed", "failure", outcome="rolled-back", code="device.health", message="no answer on :80")
    await progress.feedback("n1", action.id, failed)
    clock.advance(9)
    await progress.feedback("n1", action.id, told("closed", "success"))
    closed = await find(database, action)
    assert closed.end is not None
    assert (closed.end.outcome, closed.end.code, closed.end.message) == (
        ActionOutcome.ROLLED_BACK,
        "device.health",
        "no answer on :80",
    )
    assert (await progress.contact("n1", PRINT)).action is None


async def test_every_report_is_kept_once_also_after_the_end(database: Database, progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    first, late = told("closed", "success"), told("proceeding")
    for feedback in (first, first, late, late):
        await progress.feedback("n1", action.id, feedback)
    async with database.reading() as transaction:
        kept = await reports_about(transaction, action.id)
    assert [report.report for report in kept] == [first.report, late.report]


async def test_a_node_that_talks_without_end_fills_no_disk_and_may_still_end(
    database: Database, progress: Progress, ordered: Ordering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.progress.MAX_REPORTS", 3)
    action = await ordered()
    for _ in range(5):
        await progress.feedback("n1", action.id, told("proceeding"))
    await progress.feedback("n1", action.id, told("closed", "failure"))
    await progress.feedback("n1", action.id, told("closed", "failure"))
    async with database.reading() as transaction:
        assert len(await reports_about(transaction, action.id)) == 4
    assert (await find(database, action)).end is not None


async def test_a_success_says_what_runs_and_asks_for_the_rest(database: Database, progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    await progress.feedback("n1", action.id, told("closed", "success"))
    node = (await progress.contact("n1", PRINT)).node
    assert (node.running.version, node.running.sha256) == ("1.2", bundle("1.2", "board:1").sha256)
    assert node.attributes_wanted


async def test_a_success_that_comes_after_the_end_says_nothing_about_what_runs(progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    await progress.feedback("n1", action.id, told("closed", "failure"))
    await progress.feedback("n1", action.id, told("closed", "success"))
    assert (await progress.contact("n1", PRINT)).node.running == Running()


async def test_the_slot_comes_with_the_report_of_success(progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    await progress.feedback("n1", action.id, replace(told("closed", "success"), body={"slot": "b" * 100}))
    assert (await progress.contact("n1", PRINT)).node.running.slot == "b" * 64


async def test_a_failure_changes_nothing_about_what_runs(database: Database, progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    await progress.feedback("n1", action.id, told("closed", "failure"))
    node = (await progress.contact("n1", PRINT)).node
    assert (node.running, node.attributes_wanted) == (Running(), True)


async def test_facts_are_told_together_and_forgotten_together(progress: Progress) -> None:
    new = NodeFacts(Hardware.parse("board:1"), "1.2", digest_of(b"1.2"), "b")
    await progress.describe("n1", PRINT, Mode.MERGE, {**new.attributes(), "line": "3"})
    await progress.describe("n1", PRINT, Mode.MERGE, {"line": "4"})
    node = (await progress.contact("n1", PRINT)).node
    assert (node.running, node.attributes["line"]) == (Running("1.2", digest_of(b"1.2"), "b"), "4")
    await progress.describe("n1", PRINT, Mode.MERGE, NodeFacts(new.hardware, "", None, "a").attributes())
    node = (await progress.contact("n1", PRINT)).node
    assert (node.running, node.hardware) == (Running("", "", "a"), new.hardware), "the old slot is not of the new version"
    assert node.attributes["line"] == "4"


async def test_actions_of_other_nodes_are_nobodys_business(database: Database, progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    for attempt in (
        progress.offer("n2", action.id),
        progress.cancellation("n2", action.id),
        progress.feedback("n2", action.id, told("closed", "success")),
        progress.cancel_feedback("n2", action.id, told("closed", "success")),
    ):
        with pytest.raises(ForbiddenError, match="is not one of node n2"):
            await attempt
    assert await find(database, action) == action
    async with database.reading() as transaction:
        assert await reports_about(transaction, action.id) == ()


async def test_actions_that_never_were_are_not_found(progress: Progress, ordered: Ordering) -> None:
    action = await ordered()
    with pytest.raises(NotFoundError, match="there is no action"):
        await progress.feedback("n1", action.id + 1, told("closed", "success"))
    with pytest.raises(NotFoundError, match="not being cancelled"):
        await progress.cancellation("n1", action.id)


@pytest.mark.parametrize(
    ("mode", "attributes"),
    [
        (Mode.MERGE, {"a": "1", "b": "3", "c": "4"}),
        (Mode.REPLACE, {"b": "3", "c": "4"}),
        (Mode.REMOVE, {"a": "1"}),
    ],
)
async def test_attributes_change_as_the_node_says(
    database: Database, progress: Progress, mode: Mode, attributes: dict[str, str]
) -> None:
    await progress.describe("n1", PRINT, Mode.REPLACE, {"a": "1", "b": "2"})
    await progress.describe("n1", PRINT, mode, {"b": "3", "c": "4"})
    assert (await known(database)).attributes == attributes


async def test_what_a_node_is_and_runs_stands_in_its_attributes(database: Database, progress: Progress) -> None:
    facts = NodeFacts(Hardware("board", "1"), "1.1", digest_of(b"old"), "b")
    await progress.describe("n1", PRINT, Mode.MERGE, facts.attributes())
    node = await known(database)
    assert (node.hardware, node.running) == (facts.hardware, Running("1.1", digest_of(b"old"), "b"))
    assert not node.attributes_wanted


@pytest.mark.parametrize("data", [{HARDWARE: "board"}, {f"a{number}": "" for number in range(101)}])
async def test_attributes_that_are_refused_change_nothing(database: Database, progress: Progress, data: dict[str, str]) -> None:
    await progress.describe("n1", PRINT, Mode.MERGE, {"a0": "1"})
    before = await known(database)
    with pytest.raises(ProtocolError):
        await progress.describe("n1", PRINT, Mode.MERGE, data)
    assert await known(database) == before


async def known(database: Database) -> Node:
    async with database.reading() as transaction:
        node = await nodes.find(transaction, "n1")
    assert node is not None
    return node
