"""The section `[wan]` as limits: which rate holds when, and when nothing is counted at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.config import WanSection, parse_config
from gateway.north.sources import HttpUpstream
from gateway.north.wan import wan_line
from tests.update.wire.scripted import Asked, content_range, reply, serve
from tests.update.wire.simulated_time import SimulatedTime
from update.chunks.ranges import Range
from update.durable import Disk
from update.store.staging import Staged
from update.wire.session import wan_session

NIGHT = """
format_version = 1
[wan]
bytes_per_s = 1000000
time_zone = "Europe/Berlin"
[[wan.profile]]
from = "06:00"
to = "18:00"
days = ["mon", "tue", "wed", "thu", "fri"]
bytes_per_s = 8192
[[wan.profile]]
from = "18:00"
to = "20:00"
bytes_per_s = 0
"""


@dataclass(slots=True)
class Moment:
    """The time of day goes with the simulated clock."""

    clock: SimulatedTime
    began: datetime

    def __call__(self) -> datetime:
        return self.began + timedelta(seconds=self.clock.time() - 1000.0)


def section(text: str) -> WanSection:
    return parse_config(text, Path("/etc/fieldrelay/gateway.toml")).wan


async def received_in(seconds: float, began: datetime, wan: WanSection) -> int:
    clock = SimulatedTime()
    line = wan_line(wan, now=Moment(clock, began), clock=clock)
    received = 0

    async def receive() -> None:
        nonlocal received
        for _ in range(2000):
            await line.received("upstream/file", 4096)
            received += 4096

    task = asyncio.ensure_future(receive())
    await clock.advance(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return received


async def test_by_day_the_profile_s_rate_holds_and_by_night_the_other() -> None:
    wan = section(NIGHT)
    day = await received_in(10.0, datetime(2026, 7, 1, 10, 0, tzinfo=UTC), wan)
    assert 8192 * 9 <= day <= 8192 * 11
    night = await received_in(5.0, datetime(2026, 7, 1, 22, 0, tzinfo=UTC), wan)
    assert 4_500_000 <= night <= 5_300_000
    assert await received_in(0.0, datetime(2026, 7, 1, 17, 0, tzinfo=UTC), wan) == 2000 * 4096


async def test_who_waits_has_the_new_rate_when_the_day_ends() -> None:
    began = datetime(2026, 7, 1, 15, 59, 30, tzinfo=UTC)  # 17:59:30 at the site; from 18:00 there is no limit
    assert await received_in(29.0, began, section(NIGHT)) <= 8192 * 30
    assert await received_in(32.0, began, section(NIGHT)) == 2000 * 4096


async def test_without_rates_nothing_is_counted() -> None:
    assert await received_in(0.0, datetime(2026, 7, 1, 10, 0, tzinfo=UTC), WanSection()) == 2000 * 4096


async def test_the_configured_connections_are_what_the_line_has() -> None:
    line = wan_line(replace(WanSection(), connections=3), now=lambda: datetime.now(UTC), clock=SimulatedTime())
    held = [line.connection(small=False) for _ in range(3)]
    await held[0].__aenter__()
    await held[1].__aenter__()
    third = asyncio.ensure_future(held[2].__aenter__())
    await asyncio.wait([third], timeout=0.01)
    assert not third.done()
    async with line.connection(small=True):
        assert not third.done()
    await held[0].__aexit__(None, None, None)
    await third
    await held[1].__aexit__(None, None, None)
    await held[2].__aexit__(None, None, None)


@dataclass(slots=True)
class NotingLine:
    """A free line that notes what went over it."""

    small: list[bool] = field(default_factory=list)
    received_bytes: int = 0

    @asynccontextmanager
    async def connection(self, *, small: bool) -> AsyncIterator[None]:
        self.small.append(small)
        yield

    async def received(self, source: str, count: int) -> None:
        self.received_bytes += count


async def test_everything_that_an_upstream_is_asked_for_goes_over_the_line(tmp_path: Path) -> None:
    content, line = bytes(range(256)) * 100, NotingLine()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not (spans := asked.ranges()):
            reply(writer, 200, content)
        else:
            body = content[spans[0][0] : (spans[0][1] or 0) + 1]
            reply(writer, 206, body, content_range(spans[0][0], body, len(content)))
        await writer.drain()

    staged = Staged(Disk(), tmp_path / "staged", tmp_path / "record", length=len(content))
    async with serve(answer) as server, wan_session(connections=2) as session:
        upstream = HttpUpstream(session, server.url, line=line)
        assert await upstream.fetch("file", max_bytes=len(content)) == content
        await upstream.download("file", staged, length=len(content))
        got = [data async for _, data in upstream.read_ranges("file", [Range(10, 500)])]
    staged.close()
    assert b"".join(got) == content[10:510]
    assert line.small == [True, False, False]
    assert line.received_bytes == 2 * len(content) + 500
