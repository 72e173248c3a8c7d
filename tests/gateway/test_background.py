import asyncio

import pytest

from gateway.background import background_work
from update.errors import StateError


async def fail() -> None:
    raise ZeroDivisionError


async def test_work_that_fails_ends_the_block_and_lets_the_rest_end_well() -> None:
    ended, unending = list[str](), asyncio.Event()

    async def careful() -> None:
        try:
            await unending.wait()
        finally:
            for _ in range(3):  # rolling back takes a while
                await asyncio.sleep(0)
            ended.append("well")

    async def block() -> None:
        async with background_work() as begin:
            begin(careful(), "careful")
            await asyncio.sleep(0)
            begin(fail(), "failing")
            await unending.wait()

    with pytest.raises(ZeroDivisionError):
        await block()
    assert ended == ["well"]


async def test_work_that_ends_by_itself_ends_the_block_by_its_name() -> None:
    async def block() -> None:
        async with background_work() as begin:
            begin(asyncio.sleep(0), "brief")
            await asyncio.Event().wait()

    with pytest.raises(StateError, match="brief"):
        await block()


async def test_work_ends_with_the_block() -> None:
    unending = asyncio.Event()
    async with background_work() as begin:
        begin(unending.wait(), "unending")
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
