"""What an order of a coordinated release is to the parts that know single orders: its stages, its document, its deadlines."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from gateway.database.coordinated import Coordination, Ending, Member, Phase
from gateway.database.engine import Database
from gateway.database.queries import actions, coordinations
from gateway.database.records import Action, ActionState, ClientKind, Commit, Hold, Node, Running, Stage
from gateway.fleet.carrying_out import Hand
from gateway.fleet.deadlines import Deadlines
from gateway.fleet.judgement import Told, stage_of
from gateway.fleet.nodes import release_of
from gateway.fleet.progress import Progress
from gateway.fleet.telling import NOBODY
from gateway.south.ddi.views import Place, Shown, deployment, links
from tests.builders.fleet import Clock, bundle, register
from update.digest import digest_of
from update.plans.plan import Lost
from update.wire.assignment import Assignment
from update.wire.assignment import Commit as Word
from update.wire.assignment import Lost as LostWord
from update.wire.ddi import Execution, Finished

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RELEASE = release_of(bundle("1.2", "board:1"))
ORDER = Action(
    7,
    "n1",
    RELEASE,
    4,
    Commit.HOLD,
    ActionState.OPEN,
    "site",
    "uid 0",
    "",
    NOW,
    offered=NOW,
    superseded_by=None,
    end=None,
    hold=Hold(600, Lost.KEEP),
)


def told(state: str, *, fence: int = 4, execution: Execution = Execution.PROCEEDING) -> Told:
    return Told(str(uuid4()), execution, Finished.NONE, body={"state": state, "fence": fence})


@pytest.mark.parametrize(
    ("said", "stage"),
    [
        (told("prepared"), Stage.PREPARED),
        (told("holding"), Stage.HOLDING),
        (told("activating"), Stage.NONE),
        (told("reverting"), Stage.NONE),
        (told("testing"), None),
        (told("confirming"), None),
        (told("holding", fence=3), None),
        (told("holding", execution=Execution.CLOSED), None),
        (Told("r", Execution.PROCEEDING, Finished.NONE), None),
    ],
)
def test_a_stage_is_what_the_agent_says_of_this_very_order(said: Told, stage: Stage | None) -> None:
    assert stage_of(ORDER, said) is stage
    assert stage_of(replace(ORDER, hold=None), said) is None


def test_the_document_tells_how_far_to_go_and_the_link_changes_with_it() -> None:
    place = Place("https://gateway", "n1")
    node = Node("n1", ClientKind.AGENT, "site", digest_of(b"n1"), None, {}, False, Running(), 4, NOW, NOW)
    (chunk,) = deployment(Shown(ORDER, RELEASE, ClientKind.AGENT, place), NOW).chunks
    assert chunk.metadata is not None
    read = Assignment.parse(chunk.metadata)
    assert read is not None
    assert (read.commit, read.hold_s, read.lost, read.fence) == (Word.HOLD, 600, LostWord.KEEP, 4)
    orders = [ORDER, *(replace(ORDER, commit=each) for each in (Commit.PREPARE, Commit.COMMIT, Commit.ABORT))]
    orders.append(replace(ORDER, hold=Hold(601, Lost.KEEP)))
    found = {links(place, node, order, RELEASE, NOW)["deployment_base"].href for order in orders}
    assert len(found) == 5
    (single,) = deployment(Shown(replace(ORDER, hold=None), RELEASE, ClientKind.AGENT, place), NOW).chunks
    assert single.metadata is not None
    assert not {"fieldrelay.hold_s", "fieldrelay.lost"} & {each.key for each in single.metadata}


async def begun(database: Database, clock: Clock) -> int:
    """A run of one member, which prepares."""
    await register(database, clock, "n1")
    run = Coordination(
        id=0,
        plan="line",
        version="7",
        repository="plant",
        requested_by="uid 0",
        reason="",
        created=clock(),
        phase=Phase.PREPARING,
        step=0,
        entered=clock(),
        members=(Member("n1", 0, RELEASE),),
    )
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run)
        await Hand(transaction, NOBODY, clock()).prepare(await coordinations.known(transaction, number))
    return number


async def test_a_stage_is_booked_and_true_again_when_it_is_said_again(database: Database, clock: Clock) -> None:
    await begun(database, clock)
    progress = Progress(database, clock)
    said = told("prepared", fence=1)
    for _ in range(2):
        clock.advance(10)
        await progress.feedback("n1", 1, said)
    async with database.reading() as transaction:
        action = await actions.find(transaction, 1)
    assert action is not None
    assert (action.stage, action.staged, action.commit) == (Stage.PREPARED, clock(), Commit.PREPARE)


async def test_an_order_of_a_release_has_no_deadline_of_its_own_while_that_is_under_way(database: Database, clock: Clock) -> None:
    number = await begun(database, clock)
    deadlines = Deadlines(database, clock, NOBODY, stuck_after_s=60, verify_within_s=60)
    clock.advance(100)
    assert await deadlines.sweep() == 0
    async with database.writing() as transaction:
        run = await coordinations.known(transaction, number)
        await coordinations.end(transaction, run.id, Ending.INCONSISTENT, now=clock())
    assert await deadlines.sweep() == 1
