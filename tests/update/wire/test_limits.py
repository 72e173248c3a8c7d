"""Bandwidth under a simulated clock: never above the rate, nobody starves, shares are fair to within one block."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.wire.simulated_time import SimulatedTime
from update.wire.limits import Bucket, Rate, Share, Shares, fixed

BLOCK = 64 << 10
RATE = 1 << 20
SLACK_BYTES = 1.0

Grants = list[tuple[float, str, int]]


class Readers:
    """Tasks that take again and again, and what they were granted when."""

    def __init__(self, shares: Shares, clock: SimulatedTime) -> None:
        self.shares, self.clock = shares, clock
        self.grants: Grants = []

    async def take(self, name: str, count: int) -> None:
        await self.shares.of(name).take(count)
        self.grants.append((self.clock.time(), name, count))

    async def greedy(self, name: str, count: int) -> None:
        while True:
            await self.take(name, count)

    def granted(self, name: str) -> int:
        return sum(count for _, who, count in self.grants if who == name)


@asynccontextmanager
async def running(*works: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in works if asyncio.iscoroutine(work)]
    assert len(tasks) == len(works)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def simulated(rate: Rate, each: Rate = fixed(0)) -> tuple[Readers, SimulatedTime]:  # noqa: B008 - a constant
    clock = SimulatedTime()
    return Readers(Shares(rate, each=each, clock=clock), clock), clock


def most_above(grants: Grants, rate: int) -> float:
    """By how much the fullest window exceeds what its time allows, in bytes: over all pairs of grants, in one pass."""
    worst = lowest = 0.0
    total = 0
    for when_s, _, count in grants:
        lowest = min(lowest, total - rate * (when_s - 1000.0))
        total += count
        worst = max(worst, total - rate * (when_s - 1000.0) - lowest)
    return worst


sizes = st.lists(st.integers(1, 200_000), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    rate=st.integers(2_000, 4_000_000), each=st.sampled_from([0, 2_000, 50_000, 10_000_000]), takers=st.lists(sizes, max_size=5)
)
def test_no_window_holds_more_than_rate_and_burst(rate: int, each: int, takers: list[list[int]]) -> None:
    async def run() -> None:
        readers, clock = simulated(fixed(rate), fixed(each))

        async def one(name: str, counts: list[int]) -> None:
            step = readers.shares.of(name).step_bytes
            for count in counts:
                await readers.take(name, min(count, step))

        names = [str(number) for number in range(len(takers))]
        works = [one(name, counts) for name, counts in zip(names, takers, strict=True)]
        async with running(*works):
            await clock.advance(4000.0)
        assert len(readers.grants) == sum(map(len, takers)), "somebody starved"
        # A wish is paid block by block and is seen here when its last block is: one step per reader lies in between.
        step = min(readers.shares.burst_bytes, Bucket(fixed(each), 0.0).burst_bytes)
        assert most_above(readers.grants, rate) <= readers.shares.burst_bytes + len(names) * step + SLACK_BYTES
        for name in names:
            own = [grant for grant in readers.grants if grant[1] == name]
            burst = Bucket(fixed(each), 0.0).burst_bytes
            assert each == 0 or most_above(own, each) <= burst + step + SLACK_BYTES

    asyncio.run(run())


@settings(max_examples=100)
@given(rate=st.integers(1, 10_000_000), steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3_000_000)), max_size=40))
def test_a_bucket_never_gives_more_than_came_and_a_burst(rate: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, spent = Bucket(fixed(rate), 0.0), 0.0, 0
    burst = bucket.burst_bytes
    for passed, asked in steps:
        now += passed
        count = min(asked, burst)
        now += bucket.delay_s(count, now)
        now += bucket.delay_s(count, now)  # floating point
        if bucket.delay_s(count, now) == 0.0:
            bucket.spend(count)
            spent += count
        assert spent <= burst + rate * now + SLACK_BYTES


async def test_those_who_wait_are_served_equally_to_within_one_block() -> None:
    readers, clock = simulated(fixed(RATE))
    names = [f"node-{number}" for number in range(7)]
    had: list[int] = []
    async with running(*(readers.take(name, 1 << 40) for name in names)):
        await clock.advance(1.0)  # whoever came first had the burst
        before = [readers.shares.of(name).tag for name in names]
        for _ in range(20):
            await clock.advance(1.37)
            had = [readers.shares.of(name).tag - start for name, start in zip(names, before, strict=True)]
            assert max(had) - min(had) <= BLOCK
    assert sum(had) == pytest.approx(20 * 1.37 * RATE, rel=0.02)


async def test_what_is_asked_for_at_once_makes_no_difference() -> None:
    readers, clock = simulated(fixed(RATE))
    counts = {"a": 2000, "b": BLOCK, "c": 3 * BLOCK}
    async with running(*(readers.greedy(name, count) for name, count in counts.items())):
        await clock.advance(1.0)
        before = {name: readers.granted(name) for name in counts}
        await clock.advance(30.0)
    had = [readers.granted(name) - before[name] for name in counts]
    assert max(had) - min(had) <= (1 + 2 * 3) * BLOCK  # what is paid of a wish is seen at its end
    assert sum(had) == pytest.approx(30 * RATE, rel=0.02)


async def test_one_with_many_requests_gets_no_more_than_one_with_one() -> None:
    readers, clock = simulated(fixed(RATE))
    async with running(*(readers.greedy("many", BLOCK) for _ in range(9)), readers.greedy("one", BLOCK)):
        await clock.advance(1.0)
        many, one = readers.granted("many"), readers.granted("one")
        await clock.advance(30.0)
    assert abs((readers.granted("many") - many) - (readers.granted("one") - one)) <= 2 * BLOCK


async def test_what_one_leaves_is_shared_by_the_others() -> None:
    readers, clock = simulated(fixed(RATE))

    async def modest() -> None:
        for _ in range(60):
            await readers.take("modest", 10_000)
            passed = asyncio.Event()
            clock.call_later(1.0, passed.set)
            await passed.wait()

    async with running(modest(), readers.greedy("a", BLOCK), readers.greedy("b", BLOCK)):
        await clock.advance(50.0)
    assert readers.granted("modest") >= 10_000 * 45
    left = 50 * RATE - readers.granted("modest")
    assert readers.granted("a") == pytest.approx(left / 2, rel=0.02)
    assert readers.granted("b") == pytest.approx(left / 2, rel=0.02)


async def test_an_own_rate_below_the_fair_share_is_had_in_full() -> None:
    readers, clock = simulated(fixed(RATE), fixed(RATE // 5))
    async with running(*(readers.greedy(name, 20_000) for name in "abcd")):
        await clock.advance(60.0)
    for name in "abcd":
        assert readers.granted(name) == pytest.approx(60 * RATE / 5, rel=0.03)


async def test_alone_one_has_its_own_rate_and_no_more() -> None:
    readers, clock = simulated(fixed(0), fixed(RATE))
    async with running(readers.greedy("a", BLOCK)):
        await clock.advance(20.0)
    assert readers.granted("a") == pytest.approx(20 * RATE, rel=0.03)


async def test_one_that_comes_later_is_not_paid_for_its_absence() -> None:
    readers, clock = simulated(fixed(RATE))
    async with running(readers.greedy("early", BLOCK)):
        await clock.advance(100.0)
        before = readers.granted("early")
        async with running(readers.greedy("late", BLOCK)):
            await clock.advance(20.0)
    assert readers.granted("early") - before == pytest.approx(10 * RATE, rel=0.05)
    assert readers.granted("late") == pytest.approx(10 * RATE, rel=0.05)


async def test_within_a_share_the_first_to_ask_is_the_first_to_be_served() -> None:
    readers, clock = simulated(fixed(RATE))
    order: list[int] = []

    async def ask(number: int, count: int) -> None:
        await readers.shares.of("a").take(count)
        order.append(number)

    async with running(*(ask(number, count) for number, count in enumerate([900_000, 1, 500_000, 70_000, 1]))):
        await clock.advance(10.0)
    assert order == [0, 1, 2, 3, 4]


@settings(max_examples=30, deadline=None)
@given(gone=st.sets(st.integers(0, 11)), after_s=st.floats(0, 3))
def test_one_that_goes_away_does_not_hold_the_others(gone: set[int], after_s: float) -> None:
    async def run() -> None:
        readers, clock = simulated(fixed(RATE), fixed(RATE // 2))
        tasks = [asyncio.ensure_future(readers.take(str(number % 3), 300_000)) for number in range(12)]
        await clock.advance(after_s)
        for number in gone:
            tasks[number].cancel()
        await clock.advance(60.0)
        assert all(task.done() for task in tasks)
        assert clock.idle
        for task in tasks:
            with suppress(asyncio.CancelledError):
                task.result()

    asyncio.run(run())


async def test_a_rate_that_changes_holds_from_then_on() -> None:
    rates = {"now": 4096}
    readers, clock = simulated(lambda: rates["now"])
    async with running(readers.greedy("a", 512)):
        await clock.advance(100.0)
        slow = readers.granted("a")
        rates["now"] = RATE
        await clock.advance(15.0)
        before = readers.granted("a")
        await clock.advance(10.0)
        assert readers.granted("a") - before == pytest.approx(10 * RATE, rel=0.05)
    assert slow == pytest.approx(100 * 4096, rel=0.05)


async def test_without_a_limit_nobody_waits_and_no_timer_is_set() -> None:
    readers, clock = simulated(fixed(0))
    await readers.take("a", 1 << 40)
    assert clock.idle
    assert readers.shares.of("a").step_bytes == 1 << 20


async def test_nothing_is_free() -> None:
    readers, _ = simulated(fixed(1024))
    await asyncio.wait_for(readers.take("a", 0), 5)


async def test_names_that_are_long_unused_are_forgotten_and_others_keep_their_debt() -> None:
    readers, clock = simulated(fixed(0), fixed(4096))
    await clock.advance(1.0)
    first: Callable[[str], Share] = readers.shares.of
    old = [first(f"node-{number}") for number in range(300)]
    await clock.advance(600.0)
    used = first("node-7")
    assert used is old[7]
    await clock.advance(600.0)
    first("new")
    assert first("node-7") is used
    assert first("node-8") is not old[8]


async def test_grants_come_in_the_order_of_time() -> None:
    readers, clock = simulated(fixed(RATE))
    async with running(readers.greedy("a", BLOCK), readers.greedy("b", 100)):
        await clock.advance(3.0)
    assert all(before[0] <= after[0] for before, after in pairwise(readers.grants))
