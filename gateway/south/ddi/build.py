"""The DDI server's parts, built together."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from gateway.database.engine import Database
from gateway.database.records import Release
from gateway.fleet.build import Fleet
from gateway.fleet.digests import ContentDigests
from gateway.fleet.fitness import OfferedIfFit, Offering
from gateway.fleet.intervals import Intervals
from gateway.south.ddi.agreement import Agreement
from gateway.south.ddi.artifacts import Artifacts, Sender
from gateway.south.ddi.rauc_headers import Streams
from gateway.south.ddi.rauc_polling import RaucPolling
from gateway.south.ddi.resources import AsOrdered, Ddi
from gateway.south.ddi.views import target_of
from gateway.south.routes import Part
from update.trust.verified import TargetInfo


def ddi_parts(
    database: Database,
    fleet: Fleet,
    sender: Sender,
    find: Callable[[TargetInfo], Path | None],
    now: Callable[[], datetime],
    *,
    intervals: Intervals,
    offering: Offering | None = None,
) -> list[Part]:
    """Every resource of the controller, and what RAUC polls; `find` gives the verified file of a bundle, `sender` sends it."""

    def file_of(release: Release) -> Path | None:
        return find(target_of(release))

    sums, offered = ContentDigests(database, file_of), OfferedIfFit(offering or AsOrdered(), fleet.fitness, fleet.progress)
    streams = Streams(fleet.sightings)
    return [
        Ddi(fleet.progress, intervals=intervals, sums=sums, now=now, offering=offered),
        Artifacts(fleet.progress, sender, sums=sums, offering=offered, streams=streams),
        RaucPolling(fleet.progress, fleet.sightings, offered, now),
        Agreement(fleet.confirmations, now),
    ]
