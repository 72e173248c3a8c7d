"""What several want at once is done once, whoever goes away."""

import asyncio
from contextlib import suppress

import pytest

from gateway.single_flight import SingleFlight
from tests.builders.relayed import everything_else_ended
from update.errors import NotFoundError


class Work:
    """Counts its runs and ends when it is told."""

    def __init__(self) -> None:
        self.runs = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        await self.go_on.wait()
        return self.runs


async def test_all_who_wait_get_one_result_and_who_comes_later_a_new_one() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work, other = Work(), Work()
    waiting = [asyncio.create_task(flights.share("x", work)) for _ in range(5)]
    elsewhere = asyncio.create_task(flights.share("y", other))
    await asyncio.sleep(0)
    work.go_on.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert not elsewhere.done()
    other.go_on.set()
    await elsewhere
    assert await flights.share("x", work) == 2


async def test_who_goes_away_disturbs_nobody() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    first, second = (asyncio.create_task(flights.share("x", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    work.go_on.set()
    assert (await second, first.cancelled(), work.runs) == (1, True, 1)


async def test_an_error_is_everybodys_and_nobodys_if_all_have_gone(caplog: pytest.LogCaptureFixture) -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise NotFoundError("gone")

    results = await asyncio.gather(*(flights.share("x", fail) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {NotFoundError}
    alone = asyncio.create_task(flights.share("x", fail))
    await asyncio.sleep(0)
    alone.cancel()
    with suppress(asyncio.CancelledError):
        await alone
    await everything_else_ended()
    assert caplog.text == ""


async def test_closing_ends_what_is_under_way() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    waiting = [asyncio.create_task(flights.share("x", Work())) for _ in range(2)]
    await asyncio.sleep(0)
    await flights.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    await everything_else_ended()
