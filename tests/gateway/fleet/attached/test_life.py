"""Whatever ends one device's agent ends its own thread, and the keeper begins it anew."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine

import pytest

from gateway.fleet.attached import keeper as keeping
from gateway.fleet.attached.keeper import Keeper
from gateway.fleet.attached.life import Life
from update.errors import SilentError

LONG_S = 30.0


async def ended_with(work: Callable[[], Coroutine[object, object, None]]) -> BaseException | None:
    async with asyncio.timeout(LONG_S):
        return await Life("test", lambda _well: work()).run()


@pytest.mark.parametrize("error", [RuntimeError("defect"), SystemExit(3), asyncio.CancelledError(), MemoryError()])
async def test_whatever_is_raised_ends_the_thread_only(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    assert type(await ended_with(fail)) is type(error)


async def test_a_driver_that_cancels_its_own_task_is_no_exception() -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(LONG_S)

    assert isinstance(await ended_with(give_up), asyncio.CancelledError)


async def test_a_life_that_blocks_its_thread_holds_up_nobody_and_is_left_behind() -> None:
    begun, release = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        release.wait(LONG_S)

    life = Life("blocks", lambda _well: block())
    running = asyncio.create_task(life.run())
    assert await asyncio.to_thread(begun.wait, LONG_S)
    assert not await life.stop(0.05), "it blocks"
    release.set()
    async with asyncio.timeout(LONG_S):
        await running
    assert await life.stop(LONG_S)


async def test_a_life_that_is_stopped_ends_in_order() -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def last() -> None:
        begun.set()
        try:
            await asyncio.sleep(LONG_S)
        finally:
            cleaned.set()

    life = Life("lasts", lambda _well: last())
    running = asyncio.create_task(life.run())
    assert await asyncio.to_thread(begun.wait, LONG_S)
    assert await life.stop(LONG_S)
    assert isinstance(await running, asyncio.CancelledError)
    assert cleaned.is_set()


async def test_the_keeper_begins_again_ever_more_slowly_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    states: list[str] = []
    enough = asyncio.Event()

    async def fail() -> None:
        raise SilentError("the device does not answer")

    keeper = Keeper("motor-1", "mcuboot", lambda: Life("fails", lambda _well: fail()))

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        states.append(keeper.state)
        if len(pauses) == 9:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(keeping, "_sleep", pause)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(LONG_S):
        await enough.wait()
    task.cancel()
    await asyncio.wait({task})
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert set(states) == {"driver mcuboot failed: the device does not answer (device.silent)"}


async def test_a_life_that_is_well_again_is_shown_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = 0
    well = threading.Event()

    async def live(note_well: Callable[[], None]) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise RuntimeError("defect")
        note_well()
        well.set()
        await asyncio.sleep(LONG_S)

    async def at_once(_seconds: float) -> None:
        assert keeper.state == "driver simulated failed: RuntimeError: defect"

    monkeypatch.setattr(keeping, "_sleep", at_once)
    keeper = Keeper("dry-1", "simulated", lambda: Life("heals", live))
    task = asyncio.create_task(keeper.run())
    assert await asyncio.to_thread(well.wait, LONG_S)
    assert keeper.state == "driver simulated"
    task.cancel()
    await asyncio.wait({task})
    assert not [thread for thread in threading.enumerate() if thread.name == "heals"]


async def test_a_thread_that_is_blocked_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release = threading.Event(), threading.Event()

    async def block(_well: Callable[[], None]) -> None:
        begun.set()
        release.wait(LONG_S)

    monkeypatch.setattr(keeping, "HANGS_AFTER_S", 0.0)
    keeper = Keeper("motor-1", "mcuboot", lambda: Life("hangs", block))
    task = asyncio.create_task(keeper.run())
    try:
        assert await asyncio.to_thread(begun.wait, LONG_S)
        time.sleep(0.01)  # noqa: ASYNC251 - the clock must have gone on
        assert keeper.state.startswith("driver mcuboot hangs for")
    finally:
        release.set()
        task.cancel()
        await asyncio.wait({task})
