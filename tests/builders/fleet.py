"""A site for tests: time that passes by hand, repositories as a mirror shows them, nodes that have been here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from gateway.database.engine import Database, Transaction
from gateway.database.queries import nodes, reports
from gateway.database.records import ClientKind, ReportRecord, Running
from gateway.database.tables import reports as table
from gateway.fleet.catalogue import RepositoryState
from update.digest import digest_of
from update.errors import UnknownTargetError
from update.identity import Hardware
from update.trust.verified import TargetCustom, TargetInfo


@dataclass(slots=True)
class Clock:
    """Time that passes by hand."""

    now: datetime = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(slots=True)
class Shelf:
    """Repositories as a mirror would show them, filled by the test."""

    content: dict[str, list[TargetInfo]] = field(default_factory=dict)
    refreshed: list[str] = field(default_factory=list)

    def repositories(self) -> Sequence[str]:
        return tuple(self.content)

    def targets(self, repository: str) -> Sequence[TargetInfo]:
        return self.content[repository]

    def states(self) -> Sequence[RepositoryState]:
        return tuple(RepositoryState(name, len(found), {"root": 1}) for name, found in self.content.items())

    async def refresh(self, repository: str) -> RepositoryState:
        if repository not in self.content:
            raise UnknownTargetError(f"no repository {repository}")
        self.refreshed.append(repository)
        return RepositoryState(repository, len(self.content[repository]), {"root": 1})


def bundle(version: str, *hardware: str, path: str = "", repository: str = "plant") -> TargetInfo:
    """A bundle in a repository's metadata; its digest is that of its path."""
    name = path or f"os/{'-'.join(hardware).replace(':', '')}-{version}.swu"
    custom = TargetCustom(hw_ids=hardware, version=version)
    return TargetInfo(repository, name, 1000, digest_of(name.encode()), custom, "targets")


async def register(
    database: Database, clock: Clock, *names: str, hardware: str = "board:1", running: Running | None = None
) -> None:
    """Nodes that have been here and said what they are."""
    async with database.writing() as transaction:
        for name in names:
            await nodes.register(transaction, name, kind=ClientKind.AGENT, fingerprint=digest_of(name.encode()), now=clock())
            told = Hardware.parse(hardware) if hardware else None
            await nodes.describe(transaction, name, attributes={}, hardware=told, running=running or Running())


async def register_as(database: Database, clock: Clock, kinds: Mapping[str, ClientKind]) -> None:
    """Nodes of these kinds that have been here."""
    async with database.writing() as transaction:
        for name, kind in kinds.items():
            await nodes.register(transaction, name, kind=kind, fingerprint=digest_of(name.encode()), now=clock())


async def reports_about(transaction: Transaction, action: int) -> tuple[ReportRecord, ...]:
    """Every report kept about an action, in the order in which they came."""
    rows = await transaction.execute(select(table).where(table.c.action == action).order_by(table.c.id))
    return tuple(reports._record(row) for row in rows)
