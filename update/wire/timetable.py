"""How much of a line may be used at which time of the day: pure decisions over the wall clock of the site.

Times are what a clock on the wall shows. So when summer time begins a span from 02:00 to 03:00 does not come that day, and
when it ends it lasts two hours. A span whose end is not after its begin goes on into the next day and belongs to the day on
which it began. Of several spans that hold, the first one counts.
"""

import re
from dataclasses import field
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS

LEAST_BYTES_PER_S: Final = 4096
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)
_DAY_MIN: Final = 24 * 60


class Day(StrEnum):
    """Days of the week, in the order of `datetime.weekday`."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


_DAYS: Final = tuple(Day)


def _checked_time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError('a time is written "HH:MM", from 00:00 to 24:00')
    return text


def _checked_rate(bytes_per_s: int) -> int:
    if 0 < bytes_per_s < LEAST_BYTES_PER_S:
        raise ValueError(f"{bytes_per_s} bytes/s carry no update: 0 (no limit) or at least {LEAST_BYTES_PER_S}")
    return bytes_per_s


def checked_zone(name: str) -> str:
    """A time zone that this machine knows; empty: the machine's own. `ValueError`."""
    if name:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f'no time zone {name[:80]!r} is known here; they are written "Europe/Berlin"') from error
    return name


Wall = Annotated[str, AfterValidator(_checked_time)]
BytesPerSecond = Annotated[int, Field(strict=True, ge=0), AfterValidator(_checked_rate)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class Span:
    """Another rate for the upstreams at some time of some days; 0: no limit then. Of several that hold, the first counts."""

    from_: Annotated[Wall, Field(alias="from")]
    to: Wall
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = field(default=_DAYS)
    bytes_per_s: BytesPerSecond

    def holds(self, wall: datetime) -> bool:
        """Whether a clock on the wall that shows `wall` is within it."""
        start, end = _minutes(self.from_), _minutes(self.to)
        now, today = wall.hour * 60 + wall.minute, wall.weekday()
        if start < end:
            return start <= now < end and _DAYS[today] in self.days
        if now >= start:
            return _DAYS[today] in self.days
        return now < end and _DAYS[today - 1] in self.days


def rate_at(moment: datetime, spans: tuple[Span, ...], *, otherwise: int, zone: tzinfo | None) -> int:
    """Bytes per second at a moment (any zone), 0: no limit. `zone` is the site's; None: the machine's."""
    wall = moment.astimezone(zone)
    return next((span.bytes_per_s for span in spans if span.holds(wall)), otherwise)


def zone_of(name: str) -> tzinfo | None:
    """The zone of a checked name."""
    return ZoneInfo(name) if name else None


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return min(int(hours) * 60 + int(minutes), _DAY_MIN)
