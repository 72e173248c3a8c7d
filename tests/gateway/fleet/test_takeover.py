"""Assigners elsewhere: what they want, change and withdraw, and what they are told of it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, nodes
from gateway.database.records import (
    Action,
    ActionOutcome,
    ActionState,
    AutoConfirm,
    ClientKind,
    End,
    Handling,
    Node,
    Release,
    ReportRecord,
    Terms,
)
from gateway.fleet.confirmations import Confirmations
from gateway.fleet.deadlines import Deadlines
from gateway.fleet.issuing import AT_ONCE, Verdict, Wish
from gateway.fleet.judgement import Told
from gateway.fleet.nodes import Assigner, Order
from gateway.fleet.progress import Progress
from gateway.fleet.takeover import Takeover
from gateway.fleet.telling import Telling
from gateway.fleet.windows import UNTIL_TOLD
from tests.builders.fleet import Clock, Shelf, register
from update.digest import digest_of
from update.errors import AssignerError, HardwareError, ProvenanceError, UnknownNodeError
from update.trust.verified import Provenance
from update.wire.ddi import Execution, Finished

COMPANY = "hawkbit:company"
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.2")


@dataclass(slots=True)
class Heard:
    """An assigner that only listens."""

    said_: list[ReportRecord] = field(default_factory=list)
    written_: list[str] = field(default_factory=list)
    ends: list[tuple[str, ActionOutcome, str]] = field(default_factory=list)
    installed_: list[tuple[str, str, str]] = field(default_factory=list)
    answers: list[tuple[bool | str, ...]] = field(default_factory=list)

    async def said(self, _transaction: Transaction, _action: Action, report: ReportRecord) -> None:
        self.said_.append(report)

    async def written(self, _transaction: Transaction, action: Action) -> None:
        self.written_.append(action.source)

    async def ended(self, _transaction: Transaction, action: Action, end: End) -> None:
        self.ends.append((action.source, end.outcome, end.message))

    async def answered(self, _transaction: Transaction, _action: Action, *, confirmed: bool, details: Sequence[str]) -> None:
        self.answers.append((confirmed, *details))

    async def installed(self, _transaction: Transaction, node: Node, name: str, version: str) -> None:
        self.installed_.append((node.id, name, version))


@dataclass(slots=True)
class Elsewhere:
    """A site with node n1 of the company's hawkBit, and n2 of its own."""

    database: Database
    clock: Clock
    heard: Heard
    takeover: Takeover
    progress: Progress
    deadlines: Deadlines
    site: Assigner

    async def find(self, source: str = "17") -> Action:
        found = await self.takeover.known("n1", COMPANY, source)
        assert found is not None
        return found

    async def kind(self, kind: ClientKind) -> None:
        async with self.database.writing() as transaction:
            await nodes.set_kind(transaction, "n1", kind, fixed=True)

    async def feedback(self, *details: str, execution: str = "proceeding", finished: str = "none") -> None:
        told = Told(str(uuid.uuid4()), Execution(execution), Finished(finished), details=details)
        await self.progress.feedback("n1", (await self.find()).id, told)


@pytest.fixture
async def elsewhere(database: Database, clock: Clock, shelf: Shelf) -> Elsewhere:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", COMPANY)
    heard = Heard()
    telling = Telling({COMPANY: heard})
    return Elsewhere(
        database,
        clock,
        heard,
        Takeover(database, clock, telling),
        Progress(database, clock, telling),
        Deadlines(database, clock, telling, stuck_after_s=3600, verify_within_s=600),
        Assigner(database, shelf, clock, telling),
    )


def wish(source: str = "17", release: Release = RELEASE, terms: Terms = AT_ONCE, *, confirm: bool = False) -> Wish:
    return Wish(release, COMPANY, COMPANY, source=source, terms=terms, confirm=confirm)


async def test_a_wish_becomes_an_action_once(elsewhere: Elsewhere) -> None:
    first = await elsewhere.takeover.take("n1", wish())
    again = await elsewhere.takeover.take("n1", wish())
    assert (first.verdict, again.verdict) == (Verdict.ORDERED, Verdict.ALREADY_ORDERED)
    assert first.action is not None
    assert again.action is not None
    assert first.action.id == again.action.id
    assert (first.action.assigner, first.action.source) == (COMPANY, "17")


@pytest.mark.parametrize(("node", "error"), [("n2", AssignerError), ("n9", UnknownNodeError)], ids=["of the site", "never seen"])
async def test_an_assigner_has_its_own_nodes_only(elsewhere: Elsewhere, node: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=node):
        await elsewhere.takeover.take(node, wish())
    async with elsewhere.database.reading() as transaction:
        assert await actions.everything_unfinished(transaction) == ()


async def test_a_node_that_demands_tuf_is_not_offered_less(elsewhere: Elsewhere) -> None:
    loose = wish(release=replace(RELEASE, provenance=Provenance.CMS))
    with pytest.raises(ProvenanceError, match="freshness"):
        await elsewhere.takeover.take("n1", loose)
    async with elsewhere.database.writing() as transaction:
        await nodes.set_accepts(transaction, "n1", Provenance.CMS)
    assert (await elsewhere.takeover.take("n1", loose)).verdict is Verdict.ORDERED


async def test_a_release_for_other_hardware_is_refused(elsewhere: Elsewhere) -> None:
    with pytest.raises(HardwareError, match="board:1"):
        await elsewhere.takeover.take("n1", wish(), hardware=("other:1",))
    assert (await elsewhere.takeover.take("n1", wish(), hardware=("board:1",))).verdict is Verdict.ORDERED


async def test_terms_follow_the_assigner(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish(terms=Terms(Handling.SOFT, opens=UNTIL_TOLD)))
    await elsewhere.takeover.take("n1", wish(terms=Terms(Handling.FORCED, opens=UNTIL_TOLD)))
    assert (await elsewhere.find()).terms.handling is Handling.FORCED
    await elsewhere.takeover.change_terms("n1", COMPANY, "17", Terms())
    assert (await elsewhere.find()).terms == Terms()


async def test_a_wish_waits_for_its_confirmation(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish(confirm=True))
    assert (await elsewhere.find()).state is ActionState.WAITING
    await elsewhere.takeover.take("n1", wish())  # confirmed there meanwhile
    assert (await elsewhere.find()).state is ActionState.OPEN


async def test_an_assigner_hears_what_the_nodes_people_say(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish(confirm=True))
    confirmations = Confirmations(elsewhere.database, elsewhere.clock, Telling({COMPANY: elsewhere.heard}))
    action = await elsewhere.find()
    await confirmations.answer("n1", action.id, confirmed=False, details=("not now",))
    await confirmations.answer("n1", action.id, confirmed=True, details=())
    assert elsewhere.heard.answers == [(False, "denied at the node", "not now"), (True, "confirmed at the node")]


async def test_who_has_confirmed_beforehand_is_not_asked(elsewhere: Elsewhere) -> None:
    async with elsewhere.database.writing() as transaction:
        await nodes.set_auto_confirm(transaction, "n1", AutoConfirm("the plant", "", elsewhere.clock()))
    await elsewhere.takeover.take("n1", wish(confirm=True))
    assert (await elsewhere.find()).state is ActionState.OPEN


async def test_what_was_withdrawn_before_the_node_was_told_ends_at_once(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish())
    await elsewhere.takeover.withdraw("n1", COMPANY, "17", "cancelled there")
    await elsewhere.takeover.withdraw("n1", COMPANY, "17", "cancelled there")
    assert elsewhere.heard.ends == [("17", ActionOutcome.CANCELLED, "cancelled there")]
    assert (await elsewhere.takeover.take("n1", wish())).verdict is Verdict.ALREADY_ENDED


async def test_what_the_node_was_told_of_ends_with_its_answer(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish())
    action = await elsewhere.find()
    await elsewhere.progress.offer("n1", action.id)
    await elsewhere.takeover.withdraw("n1", COMPANY, "17", "cancelled there")
    assert (await elsewhere.find()).state is ActionState.CANCELLING
    assert elsewhere.heard.ends == []
    answer = Told(str(uuid.uuid4()), Execution.CLOSED, Finished.SUCCESS, details=("let go",))
    await elsewhere.progress.cancel_feedback("n1", action.id, answer)
    assert elsewhere.heard.ends == [("17", ActionOutcome.CANCELLED, "let go")]


async def test_nothing_is_known_of_what_was_never_wanted(elsewhere: Elsewhere) -> None:
    assert await elsewhere.takeover.withdraw("n1", COMPANY, "99", "") is None


async def test_an_override_closes_what_the_assigner_wanted_with_its_reason_and_holds(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish())
    order = Order(release="1.2", nodes=("n1",), requested_by="a stick", reason="line 3 stands still", override=True)
    (made,) = await elsewhere.site.assign(order)
    assert made.action is not None
    ((source, outcome, words),) = elsewhere.heard.ends
    assert (source, outcome) == ("17", ActionOutcome.SUPERSEDED)
    assert "line 3 stands still" in words
    assert (await elsewhere.takeover.take("n1", wish())).verdict is Verdict.ALREADY_ENDED
    newer = replace(RELEASE, path="os-1.3.swu", sha256=digest_of(b"1.3"), version="1.3")
    assert (await elsewhere.takeover.take("n1", wish("18", release=newer))).verdict is Verdict.ORDERED
    async with elsewhere.database.reading() as transaction:
        found = await actions.find(transaction, made.action.id)
    assert found is not None
    assert found.state is ActionState.CLOSED


@pytest.mark.parametrize(("reason", "override"), [("", True), ("because", False)])
async def test_without_a_reason_or_its_word_nobody_overrides(elsewhere: Elsewhere, reason: str, override: bool) -> None:
    order = Order(release="1.2", nodes=("n1",), requested_by="a stick", reason=reason, override=override)
    with pytest.raises(AssignerError, match=COMPANY):
        await elsewhere.site.assign(order)


async def test_an_assigner_hears_what_its_nodes_say(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish())
    await elsewhere.feedback("downloading")
    assert [report.details for report in elsewhere.heard.said_] == [("downloading",)]


async def test_an_assigner_hears_once_that_its_node_has_installed(elsewhere: Elsewhere) -> None:
    await elsewhere.kind(ClientKind.RAUC)
    await elsewhere.takeover.take("n1", wish())
    await elsewhere.feedback("begins")
    assert elsewhere.heard.written_ == []
    for words in ("done", "done again"):
        await elsewhere.feedback(words, execution="closed", finished="success")
    assert elsewhere.heard.written_ == ["17"]


async def test_a_node_in_circles_is_stopped_and_its_update_is_unverified(elsewhere: Elsewhere) -> None:
    await elsewhere.kind(ClientKind.SWUPDATE)
    await elsewhere.takeover.take("n1", wish())
    action = await elsewhere.find()
    await elsewhere.progress.offer("n1", action.id)
    for _ in range(3):
        assert (await elsewhere.find()).state is ActionState.OPEN
        await elsewhere.feedback("Installing Update Chunk Artifacts.")
        await elsewhere.feedback("All Chunks Installed.")
    assert (await elsewhere.find()).state is ActionState.CANCELLING
    answer = Told(str(uuid.uuid4()), Execution.CLOSED, Finished.SUCCESS, details=("cancellation acknowledged.",))
    await elsewhere.progress.cancel_feedback("n1", action.id, answer)
    ((_, outcome, words),) = elsewhere.heard.ends
    assert outcome is ActionOutcome.UNVERIFIED
    assert "installed before it was let go of" in words


@pytest.mark.parametrize(("runs", "outcome"), [("1.2", ActionOutcome.SUCCESS), ("1.1", ActionOutcome.ROLLED_BACK)])
async def test_what_is_seen_after_the_restart_ends_the_action(elsewhere: Elsewhere, runs: str, outcome: ActionOutcome) -> None:
    await elsewhere.kind(ClientKind.RAUC)
    await elsewhere.progress.observe("n1", "1.1", "boot-1")
    await elsewhere.takeover.take("n1", wish())
    await elsewhere.feedback("installed", execution="closed", finished="success")
    await elsewhere.progress.observe("n1", "1.1", "boot-1")
    assert elsewhere.heard.ends == []
    await elsewhere.progress.observe("n1", runs, "boot-2")
    assert [end[1] for end in elsewhere.heard.ends] == [outcome]


async def test_what_could_not_be_verified_in_time_is_said_to_be_unverified(elsewhere: Elsewhere) -> None:
    await elsewhere.kind(ClientKind.RAUC)
    await elsewhere.takeover.take("n1", wish())
    await elsewhere.feedback("installed", execution="closed", finished="success")
    elsewhere.clock.advance(599)
    assert await elsewhere.deadlines.sweep() == 0
    elsewhere.clock.advance(1)
    assert await elsewhere.deadlines.sweep() == 1
    assert [end[1] for end in elsewhere.heard.ends] == [ActionOutcome.UNVERIFIED]


async def test_a_node_that_never_comes_back_is_not_waited_for_without_end(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish())
    elsewhere.clock.advance(3599)
    assert await elsewhere.deadlines.sweep() == 0
    elsewhere.clock.advance(1)
    assert await elsewhere.deadlines.sweep() == 1
    assert await elsewhere.deadlines.sweep() == 0
    assert [end[1] for end in elsewhere.heard.ends] == [ActionOutcome.TIMED_OUT]


async def test_what_waits_for_its_window_is_not_stuck(elsewhere: Elsewhere) -> None:
    await elsewhere.takeover.take("n1", wish(terms=Terms(opens=UNTIL_TOLD)))
    elsewhere.clock.advance(10 * 3600)
    assert await elsewhere.deadlines.sweep() == 0


async def test_a_window_that_passes_cancels_what_was_not_installed_in_it(elsewhere: Elsewhere) -> None:
    closes = elsewhere.clock() + timedelta(seconds=60)
    await elsewhere.takeover.take("n1", wish(terms=Terms(closes=closes)))
    elsewhere.clock.advance(60)
    assert await elsewhere.deadlines.sweep() == 1
    ((_, outcome, words),) = elsewhere.heard.ends
    assert outcome is ActionOutcome.CANCELLED
    assert "window" in words


async def test_a_window_that_passes_leaves_what_was_installed_in_it(elsewhere: Elsewhere) -> None:
    await elsewhere.kind(ClientKind.RAUC)
    closes = elsewhere.clock() + timedelta(seconds=60)
    await elsewhere.takeover.take("n1", wish(terms=Terms(closes=closes)))
    await elsewhere.feedback("installed", execution="closed", finished="success")
    elsewhere.clock.advance(60)
    assert await elsewhere.deadlines.sweep() == 0


async def test_a_node_that_will_not_let_go_has_until_the_deadline(elsewhere: Elsewhere) -> None:
    terms = Terms(closes=elsewhere.clock() + timedelta(seconds=60), deadline=elsewhere.clock() + timedelta(seconds=120))
    await elsewhere.takeover.take("n1", wish(terms=terms))
    await elsewhere.progress.offer("n1", (await elsewhere.find()).id)
    elsewhere.clock.advance(60)
    assert await elsewhere.deadlines.sweep() == 1
    assert (await elsewhere.find()).state is ActionState.CANCELLING
    assert await elsewhere.deadlines.sweep() == 0
    elsewhere.clock.advance(60)
    await elsewhere.deadlines.sweep()
    assert [end[1] for end in elsewhere.heard.ends] == [ActionOutcome.TIMED_OUT]


async def test_what_came_by_hand_is_told_to_the_nodes_own_assigner(elsewhere: Elsewhere) -> None:
    for node in ("n1", "n2"):
        await elsewhere.progress.installed_elsewhere(node, "os", "1.4")
    assert elsewhere.heard.installed_ == [("n1", "os", "1.4")]
    contact = await elsewhere.progress.standing("n1")
    assert (contact.node.running.version, contact.node.attributes_wanted) == ("1.4", True)


async def test_looking_for_what_is_due_writes_only_if_something_is(elsewhere: Elsewhere, clock: Clock) -> None:
    await elsewhere.takeover.take("n1", wish())
    writings = list[None]()
    elsewhere.database.watch(lambda: writings.append(None))
    assert (await elsewhere.deadlines.sweep(), len(writings)) == (0, 0)
    clock.advance(3601)
    assert (await elsewhere.deadlines.sweep(), len(writings)) == (1, 1)
