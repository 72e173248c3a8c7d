"""What operators see and command, built together, and served on their socket."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final

from aiohttp import web

from gateway.config import ControlSection
from gateway.control.nodes import NodeControl
from gateway.control.plans import PlanControl
from gateway.control.releases import ReleaseControl
from gateway.control.reports import ReportControl
from gateway.control.server import Control, Part, allowed_peers, control_application, listen
from gateway.database.engine import Database
from gateway.fleet.build import Fleet
from gateway.fleet.catalogue import AssignerState, Repositories
from gateway.fleet.chosen import ChosenModes
from gateway.fleet.intervals import Intervals
from gateway.status import PrefetchState, RouteState, Status, StoreSize
from update.durable import Disk

_SHUTDOWN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Who tells what is shown beside nodes, repositories and store."""

    routes: Callable[[], Sequence[RouteState]]
    assigners: Callable[[], Awaitable[tuple[AssignerState, ...]]]
    prefetch: Callable[[], Sequence[PrefetchState]]
    attached: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Site:
    """What the gateway is called, its clock, how often its nodes ask, and what else there is of it."""

    name: str
    now: Callable[[], datetime]
    intervals: Intervals
    shown: Shown


def make_status(database: Database, repositories: Repositories, store: StoreSize, fleet: Fleet, site: Site) -> Status:
    """What is shown to operators, and less of it to everybody."""
    return Status(
        database,
        repositories,
        store,
        now=site.now,
        name=site.name,
        version=version("fieldrelay"),
        intervals=site.intervals,
        routes=site.shown.routes,
        prefetch=site.shown.prefetch,
        assigners=site.shown.assigners,
        last_seen=fleet.presence.last_seen,
        attached=site.shown.attached,
        releases=fleet.releases.current,
    )


def make_control(database: Database, repositories: Repositories, status: Status, fleet: Fleet) -> Sequence[Part]:
    """Every command."""
    orders = Control(status, fleet.assigner, fleet.tokens, repositories, ChosenModes(database))
    single = NodeControl(fleet.ownership, fleet.accounts, fleet.confirmations)
    return [orders, single, PlanControl(fleet.planner), ReleaseControl(fleet.releases), ReportControl(database)]


@asynccontextmanager
async def serve_operators(section: ControlSection, parts: Sequence[Part], disk: Disk) -> AsyncGenerator[None]:
    """The socket, as long as the block lasts. Errors: `ConfigurationError`."""
    allowed = allowed_peers(section.allowed_uids, section.allowed_gids)
    runner = web.AppRunner(control_application(parts, allowed), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await listen(runner, section.socket, allowed, disk)
        yield
    finally:
        await runner.cleanup()
