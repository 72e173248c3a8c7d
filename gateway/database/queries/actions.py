"""Actions: what is wanted on which node, from the order to the end."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Row, func, insert, select, update

from gateway.database.engine import Transaction
from gateway.database.records import (
    Action,
    ActionOutcome,
    ActionState,
    Commit,
    End,
    Handling,
    Hold,
    Release,
    Stage,
    Terms,
)
from gateway.database.tables import actions as table
from gateway.database.tables import as_utc, as_utc_or_none
from update.digest import Digest
from update.plans.plan import Lost
from update.trust.verified import Provenance

_AT_ONCE = Terms()


async def add(
    transaction: Transaction,
    node: str,
    release: Release,
    *,
    fence: int,
    assigner: str,
    requested_by: str,
    reason: str,
    now: datetime,
    terms: Terms = _AT_ONCE,
    source: str = "",
    waiting: bool = False,
    commit: Commit = Commit.COMMIT,
    hold: Hold | None = None,
) -> Action:
    """Add an open action, or one that waits to be confirmed. `fence` comes from `nodes.raise_fence` of the same transaction."""
    values: dict[str, object] = {
        "node": node,
        "repository": release.repository,
        "path": release.path,
        "sha256": release.sha256,
        "length": release.length,
        "version": release.version,
        "fence": fence,
        "commit": commit,
        "hold_s": None if hold is None else hold.hold_s,
        "lost": None if hold is None else hold.lost,
        "state": ActionState.WAITING if waiting else ActionState.OPEN,
        "provenance": release.provenance,
        **_columns_of(terms),
        "source": source,
        "assigner": assigner,
        "requested_by": requested_by,
        "reason": reason,
        "created": as_utc(now),
    }
    return record_of((await transaction.execute(insert(table).values(values).returning(table))).one())


async def find(transaction: Transaction, action: int) -> Action | None:
    """The action of that id."""
    row = (await transaction.execute(select(table).where(table.c.id == action))).one_or_none()
    return None if row is None else record_of(row)


async def several(transaction: Transaction, numbers: Sequence[int]) -> Mapping[int, Action]:
    """The actions of these ids, by id."""
    rows = await transaction.execute(select(table).where(table.c.id.in_(numbers)))
    return {row.id: record_of(row) for row in rows}


async def of_source(transaction: Transaction, node: str, assigner: str, source: str) -> Action | None:
    """The newest action of a node that its assigner knows by this id."""
    own = (table.c.node == node, table.c.assigner == assigner, table.c.source == source)
    row = (await transaction.execute(select(table).where(*own).order_by(table.c.id.desc()).limit(1))).one_or_none()
    return None if row is None else record_of(row)


async def everything_unfinished(transaction: Transaction) -> tuple[Action, ...]:
    """Every action that is not closed, oldest first."""
    rows = await transaction.execute(select(table).where(table.c.state != ActionState.CLOSED).order_by(table.c.id))
    return tuple(record_of(row) for row in rows)


async def unfinished(transaction: Transaction, node: str) -> tuple[Action, ...]:
    """The actions of a node that are not closed, oldest first."""
    statement = select(table).where(table.c.node == node, table.c.state != ActionState.CLOSED).order_by(table.c.fence)
    return tuple(record_of(row) for row in await transaction.execute(statement))


async def succeeded(transaction: Transaction, node: str) -> Action | None:
    """The newest action of a node that ended well; None if none ever did."""
    well = select(table).where(table.c.node == node, table.c.outcome == ActionOutcome.SUCCESS)
    row = (await transaction.execute(well.order_by(table.c.id.desc()).limit(1))).one_or_none()
    return None if row is None else record_of(row)


async def latest(transaction: Transaction) -> Mapping[str, Action]:
    """The newest action of every node that ever had one."""
    newest = select(func.max(table.c.id)).group_by(table.c.node)
    rows = await transaction.execute(select(table).where(table.c.id.in_(newest)))
    return {row.node: record_of(row) for row in rows}


async def wanted(transaction: Transaction) -> frozenset[Digest]:
    """The content of every action that is not closed."""
    rows = await transaction.execute(select(table.c.sha256).where(table.c.state != ActionState.CLOSED).distinct())
    return frozenset(Digest(row.sha256) for row in rows)


async def wanted_unlisted(transaction: Transaction) -> frozenset[Release]:
    """The bundles of actions that are not closed and that only their own signature proves."""
    columns = (table.c.repository, table.c.path, table.c.sha256, table.c.length, table.c.version)
    live = (table.c.state != ActionState.CLOSED, table.c.provenance == Provenance.CMS)
    rows = await transaction.execute(select(*columns).where(*live).distinct())
    return frozenset(
        Release(row.repository, row.path, Digest(row.sha256), row.length, row.version, Provenance.CMS) for row in rows
    )


async def mark_offered(transaction: Transaction, action: int, *, now: datetime) -> None:
    """Note that a node was told of an action, and when first: from then on it may have begun, and must be told of a cancel."""
    first = func.coalesce(table.c.offered, as_utc(now))
    await transaction.execute(update(table).where(table.c.id == action).values(offered=first, offers=table.c.offers + 1))


async def mark_installed(transaction: Transaction, action: int, *, boot_id: str, now: datetime) -> None:
    """Note when a node first said that it had installed, and in which boot."""
    statement = update(table).where(table.c.id == action, table.c.installed.is_(None))
    await transaction.execute(statement.values(installed=as_utc(now), boot_id=boot_id))


async def mark_boot(transaction: Transaction, action: int, boot_id: str) -> None:
    """Note the boot in which a node installs, where it is not known yet."""
    statement = update(table).where(table.c.id == action, table.c.boot_id == "", table.c.state != ActionState.CLOSED)
    await transaction.execute(statement.values(boot_id=boot_id))


async def decide(transaction: Transaction, action: int, commit: Commit) -> None:
    """How far a node may go from now on with an action that is not closed."""
    statement = update(table).where(table.c.id == action, table.c.state != ActionState.CLOSED)
    await transaction.execute(statement.values(commit=commit))


async def mark_stage(transaction: Transaction, action: int, stage: Stage, *, now: datetime) -> None:
    """Note where a node waits for a decision, and that it said so now."""
    statement = update(table).where(table.c.id == action, table.c.state != ActionState.CLOSED)
    await transaction.execute(statement.values(stage=stage, staged=as_utc(now)))


async def confirm(transaction: Transaction, action: int) -> None:
    """A waiting action may run."""
    statement = update(table).where(table.c.id == action, table.c.state == ActionState.WAITING)
    await transaction.execute(statement.values(state=ActionState.OPEN))


async def set_terms(transaction: Transaction, action: int, terms: Terms) -> None:
    """Change how and when an action that is not closed may run."""
    statement = update(table).where(table.c.id == action, table.c.state != ActionState.CLOSED)
    await transaction.execute(statement.values(_columns_of(terms)))


async def mark_cancelling(transaction: Transaction, action: int, *, superseded_by: int | None) -> None:
    """Ask the node to let go of an open action."""
    values = {"state": ActionState.CANCELLING, "superseded_by": superseded_by}
    live = table.c.state.in_([ActionState.OPEN, ActionState.WAITING])
    await transaction.execute(update(table).where(table.c.id == action, live).values(values))


async def reopen(transaction: Transaction, action: int) -> None:
    """The node will not let go: the action runs to its own end."""
    statement = update(table).where(table.c.id == action, table.c.state == ActionState.CANCELLING)
    await transaction.execute(statement.values(state=ActionState.OPEN))


async def close(transaction: Transaction, action: int, end: End, *, superseded_by: int | None = None) -> None:
    """Book the end of an action, once: what is closed stays as it was closed."""
    values: dict[str, object] = {
        "state": ActionState.CLOSED,
        "ended": as_utc(end.at),
        "outcome": end.outcome,
        "code": end.code,
        "message": end.message,
    }
    if superseded_by is not None:
        values["superseded_by"] = superseded_by
    await transaction.execute(update(table).where(table.c.id == action, table.c.state != ActionState.CLOSED).values(values))


def record_of(row: Row[tuple[object, ...]]) -> Action:
    """The action of a row of its table."""
    return Action(
        id=row.id,
        node=row.node,
        release=Release(row.repository, row.path, Digest(row.sha256), row.length, row.version, Provenance(row.provenance)),
        fence=row.fence,
        commit=Commit(row.commit),
        state=ActionState(row.state),
        assigner=row.assigner,
        requested_by=row.requested_by,
        reason=row.reason,
        created=as_utc(row.created),
        offered=as_utc_or_none(row.offered),
        superseded_by=row.superseded_by,
        end=None if row.ended is None else End(as_utc(row.ended), ActionOutcome(row.outcome), row.code, row.message),
        terms=_terms(row),
        source=row.source,
        offers=row.offers,
        installed=as_utc_or_none(row.installed),
        boot_id=row.boot_id,
        hold=None if row.hold_s is None else Hold(row.hold_s, Lost(row.lost)),
        stage=Stage(row.stage),
        staged=as_utc_or_none(row.staged),
    )


def _columns_of(terms: Terms) -> dict[str, object]:
    times = {"forced_at": terms.forced_at, "opens": terms.opens, "closes": terms.closes, "deadline": terms.deadline}
    return {"handling": terms.handling, **{name: moment and as_utc(moment) for name, moment in times.items()}}


def _terms(row: Row[tuple[object, ...]]) -> Terms:
    return Terms(
        handling=Handling(row.handling),
        forced_at=as_utc_or_none(row.forced_at),
        opens=as_utc_or_none(row.opens),
        closes=as_utc_or_none(row.closes),
        deadline=as_utc_or_none(row.deadline),
    )
