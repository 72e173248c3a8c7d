"""`[wan]`: the client session for all upstreams, and the limits of the line that every request to them goes over."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp

from gateway.config import WanSection
from update.provided import read_provided
from update.wire.limits import Clock, Rate, Shares
from update.wire.line import BoundedLine
from update.wire.session import wan_session
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


@asynccontextmanager
async def wan_client(config: WanSection) -> AsyncGenerator[aiohttp.ClientSession]:
    """The client session for all upstreams, as configured. Errors: `ConfigurationError`."""
    user, password = None, ""
    if config.proxy_credentials is not None:
        text = read_provided(config.proxy_credentials).decode(errors="replace").strip()
        user, _, password = text.partition(":")
    session = wan_session(
        proxy=config.proxy,
        proxy_user=user,
        proxy_password=password,
        extra_ca=config.extra_ca,
        source_address=config.source_address,
        source_interface=config.source_interface,
        connections=config.connections,
    )
    async with session:
        yield session
