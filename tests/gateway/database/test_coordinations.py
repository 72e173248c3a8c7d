from dataclasses import replace
from datetime import timedelta

from gateway.database.coordinated import Coordination, Course, Decision, Ending, Member, Phase, Quorum
from gateway.database.engine import Database
from gateway.database.queries import actions, coordinations, nodes
from gateway.database.records import Commit, Hold, Release, Stage
from tests.builders.fleet import Clock, bundle, register
from update.plans.plan import Deadlines, Lost


def release(version: str) -> Release:
    target = bundle(version, "board:1")
    return Release(target.repository, target.path, target.sha256, target.length, version)


def run_of(clock: Clock) -> Coordination:
    """Two members in two steps, with everything said that a run can say."""
    new, old = release("1.2"), release("1.1")
    members = (
        Member("n1", 0, new, previous=old, interlocks=("gate",)),
        Member("n2", 1, new, hold=False, reverts=False, needs=("n1",)),
    )
    return Coordination(
        id=0,
        plan="line",
        version="7",
        repository="plant",
        requested_by="uid 0",
        reason="spring",
        created=clock(),
        phase=Phase.PREPARING,
        step=0,
        entered=clock(),
        members=members,
        deadlines=Deadlines(prepare_s=10, hold_s=99),
        lost=Lost.KEEP,
        quorums=(Quorum(("n1", "n2"), 1, "one conveyor at a time"),),
    )


async def test_a_run_is_read_as_it_was_written(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run_of(clock))
    async with database.reading() as transaction:
        found = await coordinations.find(transaction, number)
        assert await coordinations.live(transaction) == (number,)
        assert await coordinations.held(transaction) == {"n1": number, "n2": number}
        assert await coordinations.wanted(transaction) == {release("1.2").sha256, release("1.1").sha256}
    assert found == replace(run_of(clock), id=number)


async def test_what_ended_holds_nobody_and_wants_nothing(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run_of(clock))
        await coordinations.end(transaction, number, Ending.REVERTED, now=clock())
        await coordinations.end(transaction, number, Ending.COMPLETE, now=clock())
        assert await coordinations.live(transaction) == ()
        assert await coordinations.held(transaction) == {}
        assert await coordinations.wanted(transaction) == frozenset()
        found = await coordinations.find(transaction, number)
    assert found is not None
    assert (found.phase, found.ending, found.ended) == (Phase.ENDED, Ending.REVERTED, clock())


async def test_a_decision_that_has_fallen_stays(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run_of(clock))
        await coordinations.decide(transaction, number, Decision.REVERT, "n1 failed")
        await coordinations.decide(transaction, number, Decision.COMMIT, "")
        found = await coordinations.find(transaction, number)
    assert found is not None
    assert (found.decision, found.why) == (Decision.REVERT, "n1 failed")


async def test_a_pause_counts_for_no_deadline(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run_of(clock))
        await coordinations.set_course(transaction, number, "n1", Course.GOING, now=clock())
        began = clock()
        clock.advance(5)
        await coordinations.pause(transaction, number, now=clock())
        clock.advance(100)
        await coordinations.pause(transaction, number, now=clock())
        paused = await coordinations.find(transaction, number)
        assert paused is not None
        await coordinations.resume(transaction, paused, now=clock())
        found = await coordinations.find(transaction, number)
    assert found is not None
    assert (found.paused, found.entered) == (None, began + timedelta(seconds=100))
    assert found.by_name["n1"].since == began + timedelta(seconds=100)
    assert found.by_name["n2"].since is None


async def test_only_the_newest_remarks_are_kept(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    async with database.writing() as transaction:
        number = await coordinations.add(transaction, run_of(clock))
        for index in range(coordinations.MAX_REMARKS + 3):
            await coordinations.remark(transaction, number, f"remark {index}", now=clock())
        (found,) = await coordinations.newest(transaction, 5)
    assert len(found.remarks) == coordinations.MAX_REMARKS
    assert [each.words for each in found.remarks[:1]] == ["remark 3"]


async def test_an_action_of_a_run_waits_at_stages_and_is_decided_about(database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    async with database.writing() as transaction:
        fence = await nodes.raise_fence(transaction, "n1")
        hold = Hold(60, Lost.KEEP)
        added = await actions.add(
            transaction,
            "n1",
            release("1.2"),
            fence=fence,
            assigner="site",
            requested_by="uid 0",
            reason="",
            now=clock(),
            commit=Commit.PREPARE,
            hold=hold,
        )
        assert (added.commit, added.hold, added.stage, added.staged) == (Commit.PREPARE, hold, Stage.NONE, None)
        await actions.mark_stage(transaction, added.id, Stage.PREPARED, now=clock())
        await actions.decide(transaction, added.id, Commit.HOLD)
        found = await actions.find(transaction, added.id)
    assert found is not None
    assert (found.commit, found.stage, found.staged) == (Commit.HOLD, Stage.PREPARED, clock())
