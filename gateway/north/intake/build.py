"""What takes in media, built as it is configured."""

import logging
from collections.abc import Callable
from datetime import datetime

from gateway.config import GatewayConfig, StateFolder
from gateway.fleet.build import Fleet
from gateway.fleet.by_hand import ByHand
from gateway.fleet.stale import StalePermits
from gateway.north.elsewhere import Begin
from gateway.north.intake.adoption import Adopter, Chunks
from gateway.north.intake.lines import NewestLines
from gateway.north.intake.report_key import report_key
from gateway.north.intake.reports import Author, Reports
from gateway.north.intake.requests import SiteRequests
from gateway.north.intake.singles import SingleBundles
from gateway.north.intake.visits import Visits
from gateway.north.means import Common
from gateway.north.mirrors import Mirrors
from update.durable import Disk


def begin_visits(
    config: GatewayConfig,
    common: Common,
    fleet: Fleet,
    *,
    mirrors: Mirrors,
    chunks: Chunks,
    disk: Disk,
    now: Callable[[], datetime],
    begin: Begin,
) -> None:
    """Begin to take in media, where that is switched on."""
    section = config.media
    if not section.enabled:
        return
    lines = NewestLines()
    author = Author(config.gateway.name, report_key(disk, StateFolder(config.gateway.state)), section.language)
    reports = Reports(disk, section.intake, common.database, author, lines)
    singles = SingleBundles([common.vouched(name) for name in section.singles])
    adopter = Adopter(mirrors, common.room.store, chunks, singles, SiteRequests(allowed=section.requests))
    by_hand = ByHand(common.database, mirrors, fleet.assigner, fleet.takeover, override=section.override)
    permits = StalePermits(disk, config.gateway.state, section.intake, grace_s=section.stale_grace_s)
    visits = Visits(disk, section.intake, adopter, by_hand, reports=reports, permits=permits, now=now, install=section.install)
    begin(_listening(visits, lines) if section.requests else visits.run(), "media")


async def _listening(visits: Visits, lines: NewestLines) -> None:
    """Where a report may be asked for the log, it is kept."""
    with lines.kept(logging.getLogger()):
        await visits.run()
