"""What takes in media, built as it is configured."""

from collections.abc import Callable
from datetime import datetime

from gateway.fleet.build import Fleet
from gateway.fleet.by_hand import ByHand
from gateway.north.elsewhere import Begin
from gateway.north.intake.adoption import Adopter, Chunks
from gateway.north.intake.singles import SingleBundles
from gateway.north.intake.visits import Visits
from gateway.north.means import Common
from gateway.north.mirrors import Mirrors
from gateway.sections.media import MediaSection
from update.durable import Disk


def begin_visits(
    section: MediaSection,
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
    if not section.enabled:
        return
    singles = SingleBundles([common.vouched(name) for name in section.singles])
    adopter = Adopter(mirrors, common.room.store, chunks, singles)
    by_hand = ByHand(common.database, mirrors, fleet.assigner, fleet.takeover, override=section.override)
    begin(Visits(disk, section.intake, adopter, by_hand, now, install=section.install).run(), "media")
