"""Streams side by side: every event once, each stream in its order, no more than so many, and nothing left behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from update.errors import UnreachableError
from update.wire.lanes import merged


class Counted:
    """Makes streams and counts those that are open."""

    def __init__(self) -> None:
        self.open = self.most = self.given = 0

    async def stream(self, number: int, length: int, *, fail: bool = False) -> AsyncGenerator[tuple[int, int], None]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for index in range(length):
                await asyncio.sleep(0)
                self.given += 1
                yield number, index
            if fail:
                raise UnreachableError(f"stream {number} broke")
        finally:
            self.open -= 1


@pytest.mark.parametrize("at_once", [1, 3, 20])
async def test_every_event_comes_once_and_each_stream_keeps_its_order(at_once: int) -> None:
    counted = Counted()
    streams = [counted.stream(number, number % 5) for number in range(12)]
    events = [event async for event in merged(streams, at_once=at_once)]
    for number in range(12):
        assert [index for of, index in events if of == number] == list(range(number % 5))
    assert (counted.open, counted.most <= at_once) == (0, True)


async def test_no_stream_gives_nothing() -> None:
    assert [event async for event in merged(list[AsyncGenerator[int, None]](), at_once=3)] == []


async def test_a_failure_ends_all_after_what_had_come() -> None:
    counted, events = Counted(), list[tuple[int, int]]()
    streams = [counted.stream(0, 3, fail=True), counted.stream(1, 100_000), counted.stream(2, 100_000)]

    async def read() -> None:
        async for event in merged(streams, at_once=2):
            events.append(event)

    with pytest.raises(UnreachableError, match="stream 0 broke"):
        await read()
    assert [event for event in events if event[0] == 0] == [(0, 0), (0, 1), (0, 2)]
    assert counted.open == 0
    assert not [event for event in events if event[0] == 2]


async def test_a_reader_that_stops_or_is_slow_is_not_run_ahead_of() -> None:
    counted = Counted()
    async with aclosing(merged([counted.stream(number, 100_000) for number in range(9)], at_once=3)) as events:
        async for _ in events:
            for _ in range(100):
                await asyncio.sleep(0)
            break
    assert counted.open == 0
    assert counted.given < 30
