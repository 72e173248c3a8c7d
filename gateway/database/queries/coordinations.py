"""Coordinated releases: the runs and their members, written step by step as they are carried out.

Whatever can be small and is always read whole (deadlines, quorums, releases) is kept as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import Row, insert, select, update

from gateway.database.coordinated import Coordination, Course, Decision, Ending, Member, Phase, Quorum, Remark
from gateway.database.engine import Transaction
from gateway.database.records import Release
from gateway.database.tables import as_utc, as_utc_or_none
from gateway.database.tables import coordinations as table
from gateway.database.tables import members as members_table
from update.digest import Digest
from update.errors import NotFoundError
from update.plans.plan import Deadlines, Lost
from update.trust.verified import Provenance

MAX_REMARKS = 500
"""What happened longest ago is forgotten beyond that: no device can fill the disk."""


async def add(transaction: Transaction, run: Coordination) -> int:
    """Begin a run (its `id` is not looked at); the id that it gets."""
    values = {
        "plan": run.plan,
        "version": run.version,
        "repository": run.repository,
        "requested_by": run.requested_by,
        "reason": run.reason,
        "created": as_utc(run.created),
        "phase": run.phase,
        "step": run.step,
        "entered": as_utc(run.entered),
        "decision": run.decision,
        "why": run.why,
        "shut": "",
        "terms": {
            "deadlines": asdict(run.deadlines),
            "lost": run.lost,
            "quorums": [{"nodes": list(each.nodes), "at_most": each.at_most, "reason": each.reason} for each in run.quorums],
        },
        "remarks": [],
    }
    number = int((await transaction.execute(insert(table).values(values).returning(table.c.id))).scalar_one())
    if run.members:
        await transaction.execute(insert(members_table), [_columns_of(number, member) for member in run.members])
    return number


async def find(transaction: Transaction, run: int) -> Coordination | None:
    """The run of that id, with its members."""
    row = (await transaction.execute(select(table).where(table.c.id == run))).one_or_none()
    return None if row is None else await _whole(transaction, row)


async def known(transaction: Transaction, run: int) -> Coordination:
    """The same for a run that there is: `NotFoundError`."""
    found = await find(transaction, run)
    if found is None:
        raise NotFoundError(f"there is no coordinated release {run}")
    return found


async def live(transaction: Transaction) -> tuple[int, ...]:
    """The runs that have not ended, oldest first."""
    rows = await transaction.execute(select(table.c.id).where(table.c.ended.is_(None)).order_by(table.c.id))
    return tuple(row.id for row in rows)


async def newest(transaction: Transaction, most: int) -> tuple[Coordination, ...]:
    """The runs that began last, newest first."""
    rows = (await transaction.execute(select(table).order_by(table.c.id.desc()).limit(most))).all()
    return tuple([await _whole(transaction, row) for row in rows])


async def held(transaction: Transaction) -> Mapping[str, int]:
    """The nodes of runs that have not ended, each with its run."""
    statement = select(members_table.c.node, table.c.id).join_from(members_table, table).where(table.c.ended.is_(None))
    return {row.node: row.id for row in await transaction.execute(statement)}


async def wanted(transaction: Transaction) -> frozenset[Digest]:
    """What runs that have not ended may yet order: their releases, and those that members ran before."""
    columns = (members_table.c.release, members_table.c.previous)
    statement = select(*columns).join_from(members_table, table).where(table.c.ended.is_(None))
    rows = await transaction.execute(statement)
    return frozenset(Digest(each["sha256"]) for row in rows for each in (row.release, row.previous) if each)


async def enter(transaction: Transaction, run: int, phase: Phase, step: int, *, now: datetime) -> None:
    """A run is in this phase now, at this step."""
    await _change(transaction, run, phase=phase, step=step, entered=as_utc(now), shut="")


async def decide(transaction: Transaction, run: int, decision: Decision, why: str) -> None:
    """The one decision of a run, once: a decision that has fallen stays."""
    statement = update(table).where(table.c.id == run, table.c.decision == Decision.NONE)
    await transaction.execute(statement.values(decision=decision, why=why))


async def pause(transaction: Transaction, run: int, *, now: datetime) -> None:
    """Nothing is told to the members of a run until it is resumed."""
    await transaction.execute(update(table).where(table.c.id == run, table.c.paused.is_(None)).values(paused=as_utc(now)))


async def resume(transaction: Transaction, run: Coordination, *, now: datetime) -> None:
    """Go on with a run that was paused; the pause counts for no deadline."""
    if run.paused is None:
        return
    pause_s = now - run.paused
    await _change(transaction, run.id, paused=None, entered=as_utc(_later(run.entered, pause_s, now)))
    for member in run.members:
        if member.since is not None:
            await _change_member(transaction, run.id, member.node, since=as_utc(_later(member.since, pause_s, now)))


async def wait_for(transaction: Transaction, run: int, interlock: str) -> None:
    """Which interlock a run waits for; empty: for none."""
    await _change(transaction, run, shut=interlock)


async def remark(transaction: Transaction, run: int, words: str, *, now: datetime) -> None:
    """Keep what happened, for people."""
    kept = (await transaction.execute(select(table.c.remarks).where(table.c.id == run))).scalar_one()
    await _change(transaction, run, remarks=[*kept, [as_utc(now).isoformat(), words]][-MAX_REMARKS:])


async def end(transaction: Transaction, run: int, ending: Ending, *, now: datetime) -> None:
    """A run has ended, once."""
    statement = update(table).where(table.c.id == run, table.c.ended.is_(None))
    await transaction.execute(statement.values(phase=Phase.ENDED, ending=ending, ended=as_utc(now), shut=""))


async def set_course(transaction: Transaction, run: int, node: str, course: Course, *, now: datetime, note: str = "") -> None:
    """What a member was told, or what came of it."""
    values: dict[str, object] = {"course": course, "since": as_utc(now)}
    await _change_member(transaction, run, node, **(values | ({"note": note} if note else {})))


async def set_action(transaction: Transaction, run: int, node: str, action: int, tries: int) -> None:
    """By which action a member carries out what it was told, and how many it was given since the decision."""
    await _change_member(transaction, run, node, action=action, tries=tries)


async def _whole(transaction: Transaction, row: Row[tuple[object, ...]]) -> Coordination:
    order = (members_table.c.step, members_table.c.node)
    found = await transaction.execute(select(members_table).where(members_table.c.coordination == row.id).order_by(*order))
    terms = row.terms
    return Coordination(
        id=row.id,
        plan=row.plan,
        version=row.version,
        repository=row.repository,
        requested_by=row.requested_by,
        reason=row.reason,
        created=as_utc(row.created),
        phase=Phase(row.phase),
        step=row.step,
        entered=as_utc(row.entered),
        members=tuple(_member(each) for each in found),
        decision=Decision(row.decision),
        why=row.why,
        paused=as_utc_or_none(row.paused),
        shut=row.shut,
        deadlines=Deadlines(**terms["deadlines"]),
        lost=Lost(terms["lost"]),
        quorums=tuple(Quorum(tuple(each["nodes"]), each["at_most"], each["reason"]) for each in terms["quorums"]),
        remarks=tuple(Remark(datetime.fromisoformat(at), words) for at, words in row.remarks),
        ending=None if row.ending is None else Ending(row.ending),
        ended=as_utc_or_none(row.ended),
    )


def _member(row: Row[tuple[object, ...]]) -> Member:
    release = _release(row.release)
    if release is None:
        raise ValueError(f"member {row.node} of run {row.coordination} has no release")
    return Member(
        node=row.node,
        step=row.step,
        release=release,
        previous=_release(row.previous),
        hold=row.hold,
        reverts=row.reverts,
        needs=tuple(row.needs),
        interlocks=tuple(row.interlocks),
        course=Course(row.course),
        action=row.action,
        tries=row.tries,
        since=as_utc_or_none(row.since),
        note=row.note,
    )


def _columns_of(run: int, member: Member) -> dict[str, object]:
    return {
        "coordination": run,
        "node": member.node,
        "step": member.step,
        "release": asdict(member.release),
        "previous": None if member.previous is None else asdict(member.previous),
        "hold": member.hold,
        "reverts": member.reverts,
        "needs": list(member.needs),
        "interlocks": list(member.interlocks),
        "course": member.course,
        "action": member.action,
        "tries": member.tries,
        "since": None if member.since is None else as_utc(member.since),
        "note": member.note,
    }


def _release(value: Mapping[str, object] | None) -> Release | None:
    if value is None:
        return None
    names: Sequence[str] = ("repository", "path", "version")
    texts = {name: str(value[name]) for name in names}
    sha256, provenance = Digest(str(value["sha256"])), Provenance(str(value["provenance"]))
    return Release(**texts, sha256=sha256, length=int(str(value["length"])), provenance=provenance)


def _later(moment: datetime, pause_s: timedelta, now: datetime) -> datetime:
    return min(moment + pause_s, now)


async def _change(transaction: Transaction, run: int, **values: object) -> None:
    await transaction.execute(update(table).where(table.c.id == run).values(values))


async def _change_member(transaction: Transaction, run: int, node: str, **values: object) -> None:
    own = (members_table.c.coordination == run, members_table.c.node == node)
    await transaction.execute(update(members_table).where(*own).values(values))
