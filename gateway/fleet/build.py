"""The fleet's parts, built together: all of them tell the same assigners."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.database.engine import Database
from gateway.fleet.accounts import Accounts
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.confirmations import Confirmations
from gateway.fleet.coordinator import Coordinator
from gateway.fleet.deadlines import Deadlines
from gateway.fleet.fitness import UNJUDGED, Fitness
from gateway.fleet.interlocks import SiteInterlocks
from gateway.fleet.nodes import Assigner
from gateway.fleet.ownership import Ownership
from gateway.fleet.planning import SitePlanner
from gateway.fleet.presence import Presence
from gateway.fleet.progress import Progress
from gateway.fleet.releases import Releases
from gateway.fleet.sightings import Sightings
from gateway.fleet.takeover import Takeover
from gateway.fleet.telling import Telling
from gateway.fleet.tokens import Tokens
from update.trust.verified import TargetInfo

Find = Callable[[TargetInfo], Path | None]
_NO_INTERLOCKS = SiteInterlocks(())


def _nothing(_target: TargetInfo) -> Path | None:
    """Nothing is stored."""
    return None


@dataclass(frozen=True, slots=True)
class Fleet:
    """What knows about nodes and what is wanted of them."""

    progress: Progress
    presence: Presence
    assigner: Assigner
    takeover: Takeover
    confirmations: Confirmations
    deadlines: Deadlines
    accounts: Accounts
    ownership: Ownership
    tokens: Tokens
    sightings: Sightings
    fitness: Fitness
    planner: SitePlanner
    releases: Releases
    coordinator: Coordinator

    def begin(self, background: Callable[[Coroutine[object, object, object], str], None]) -> None:
        """Begin what lasts as long as the gateway."""
        background(self.deadlines.run(), "deadlines")
        background(self.presence.run(), "presence")
        background(self.coordinator.run(), "coordinator")


def make_fleet(
    database: Database,
    catalogue: Catalogue,
    now: Callable[[], datetime],
    telling: Telling,
    *,
    stuck_after_s: int,
    verify_within_s: int,
    fitness: Fitness = UNJUDGED,
    find: Find = _nothing,
    interlocks: SiteInterlocks = _NO_INTERLOCKS,
) -> Fleet:
    """All parts on one database; `find` gives the verified files of release plans."""
    presence = Presence(database, now)
    planner = SitePlanner(database, catalogue, find, interlocks.names)
    progress = Progress(database, now, telling, presence)
    return Fleet(
        progress=progress,
        presence=presence,
        assigner=Assigner(database, catalogue, now, telling, fitness),
        takeover=Takeover(database, now, telling, fitness),
        confirmations=Confirmations(database, now, telling),
        deadlines=Deadlines(database, now, telling, stuck_after_s=stuck_after_s, verify_within_s=verify_within_s),
        accounts=Accounts(database, now),
        ownership=Ownership(database, now, telling),
        tokens=Tokens(database, now),
        sightings=Sightings(database, progress),
        fitness=fitness,
        planner=planner,
        releases=Releases(database, now, planner, telling=telling, last_seen=presence.last_seen),
        coordinator=Coordinator(database, now, interlocks, telling=telling, last_seen=presence.last_seen),
    )
