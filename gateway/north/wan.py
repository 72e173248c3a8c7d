"""The limits of `[wan]` as a line that every request to an upstream goes over."""

from collections.abc import Callable
from datetime import datetime

from gateway.config import WanSection
from update.wire.limits import Clock, Rate, Shares
from update.wire.line import BoundedLine
from update.wire.timetable import rate_at, zone_of

_LOOK_S = 1.0


def wan_line(section: WanSection, *, now: Callable[[], datetime], clock: Clock) -> BoundedLine:
    """The line of this gateway; without a rate at any time of the day, bytes are not counted."""
    rated = section.bytes_per_s or any(span.bytes_per_s for span in section.profile)
    shares = Shares(_rate(section, now, clock), clock=clock) if rated else None
    return BoundedLine(connections=section.connections, shares=shares)


def _rate(section: WanSection, now: Callable[[], datetime], clock: Clock) -> Rate:
    """What the timetable says; asked for each block, so it is looked up once a second."""
    zone = zone_of(section.time_zone)
    known, until_s = 0, float("-inf")

    def rate() -> int:
        nonlocal known, until_s
        if (seconds := clock.time()) >= until_s:
            known = rate_at(now(), section.profile, otherwise=section.bytes_per_s, zone=zone)
            until_s = seconds + _LOOK_S
        return known

    return rate
