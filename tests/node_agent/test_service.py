"""The loop of `update agent`: looks, waits, is woken, ends in order."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from node_agent.agent import Agent, Turn
from node_agent.control import ask_to_look
from node_agent.record import Entry
from node_agent.service import serve
from update.errors import StateError, StoreError, UnreachableError


@dataclass
class Turns:
    """An agent whose turns end as listed; the last one for ever. None: it hangs until it is cancelled."""

    ends: list[Turn | BaseException | None]
    taken: int = 0
    cancelled: bool = False
    entry: Entry = field(default_factory=Entry)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def turn(self) -> Turn:
        self.taken += 1
        self.begun.set()
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if end is None:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if isinstance(end, BaseException):
            raise end
        return cast("Turn", end)


@dataclass
class Pauses:
    """Says how long to wait, and notes after what it was asked."""

    seconds: float
    after: list[Turn] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def pause_s(self, turn: Turn) -> float:
        self.after.append(turn)
        self.asked.set()
        return self.seconds


async def run(turns: Turns, folder: Path, pauses: Pauses) -> Turn:
    async with asyncio.timeout(30):
        return await serve(cast("Agent", turns), folder, pauses)


async def test_a_restart_ends_the_process(tmp_path: Path) -> None:
    turns, pauses = Turns([Turn.NOTHING, Turn.ENDED, Turn.EXIT]), Pauses(0)
    assert await run(turns, tmp_path, pauses) is Turn.EXIT
    assert pauses.after == [Turn.NOTHING], "after an update that ended it looks again at once"


async def test_an_assigner_that_is_away_is_waited_for(tmp_path: Path) -> None:
    pauses = Pauses(0)
    assert await run(Turns([UnreachableError("away"), Turn.WAITING, Turn.EXIT]), tmp_path, pauses) is Turn.EXIT
    assert pauses.after == [Turn.WAITING, Turn.WAITING]


async def test_a_disk_that_fails_ends_the_process_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await run(Turns([StoreError("read-only")]), tmp_path, Pauses(0))


async def test_somebody_who_asks_wakes_it(tmp_path: Path) -> None:
    turns, pauses = Turns([Turn.NOTHING, Turn.EXIT]), Pauses(3600)
    running = asyncio.create_task(run(turns, tmp_path, pauses))
    await pauses.asked.wait()
    assert await ask_to_look(tmp_path)
    assert await running is Turn.EXIT
    assert turns.taken == 2


async def test_having_been_woken_once_it_waits_again(tmp_path: Path) -> None:
    turns, pauses = Turns([Turn.NOTHING, Turn.NOTHING, Turn.EXIT]), Pauses(3600)
    running = asyncio.create_task(run(turns, tmp_path, pauses))
    for taken in (1, 2):
        await pauses.asked.wait()
        pauses.asked.clear()
        for _ in range(20):
            await asyncio.sleep(0)
        assert turns.taken == taken
        assert await ask_to_look(tmp_path)
    assert await running is Turn.EXIT


async def test_told_to_end_it_ends_while_it_waits(tmp_path: Path) -> None:
    pauses = Pauses(3600)
    running = asyncio.create_task(run(Turns([Turn.NOTHING]), tmp_path, pauses))
    await pauses.asked.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is Turn.NOTHING


async def test_told_to_end_it_ends_in_the_middle_of_a_turn(tmp_path: Path) -> None:
    turns = Turns([None])
    running = asyncio.create_task(run(turns, tmp_path, Pauses(0)))
    await turns.waiting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is Turn.NOTHING
    assert turns.cancelled


async def test_while_the_device_goes_down_nothing_new_begins(tmp_path: Path) -> None:
    turns = Turns([Turn.GOING_DOWN, Turn.NOTHING])
    running = asyncio.create_task(run(turns, tmp_path, Pauses(0)))
    await turns.begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is Turn.GOING_DOWN
    assert turns.taken == 1


async def test_a_device_that_does_not_go_down_is_an_error_so_that_its_supervisor_tries_again(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="still runs"):
        await serve(cast("Agent", Turns([Turn.GOING_DOWN])), tmp_path, Pauses(0), going_down_s=0.01)
