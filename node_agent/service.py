"""`update agent`: look, update, restart, for ever; wakes up early when somebody asks, ends in order when told to."""

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from node_agent.agent import Agent, Turn
from node_agent.control import listening, notify
from update.errors import StateError, WireError

_LOG = logging.getLogger(__name__)


class Rhythm(Protocol):
    """How long to wait until the next look, in seconds, within the configuration's bounds."""

    def pause_s(self, turn: Turn) -> float:
        """After a turn that ended so; WAITING also stands for an assigner that could not be asked."""
        ...


async def serve(agent: Agent, folder: Path, rhythm: Rhythm, *, going_down_s: float = 300.0) -> Turn:
    """Turn after turn until the process must end; NOTHING says that it was told to.

    Errors, after which a supervisor starts the process again: `StoreError`, `StateError` for a device that does not go down.
    """
    wake, stop = asyncio.Event(), asyncio.Event()
    _on_signals(stop.set)
    async with listening(folder, wake.set):
        notify("READY=1\nSTATUS=looking for updates")
        stopping = asyncio.create_task(stop.wait())
        try:
            while True:
                turning = asyncio.create_task(_turn(agent))
                await asyncio.wait({turning, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not turning.done():
                    return await _ended(turning)
                turn = turning.result()
                if turn is Turn.GOING_DOWN:
                    notify("STOPPING=1\nSTATUS=the device restarts")
                    await _any_of({stopping}, going_down_s)
                    if not stop.is_set():
                        raise StateError(f"the device was told to restart {going_down_s:g} s ago and still runs; trying again")
                    return turn
                if turn is Turn.EXIT or stop.is_set():
                    return turn if turn is Turn.EXIT else Turn.NOTHING
                notify(f"STATUS={agent.entry.state}")
                if turn is not Turn.ENDED:
                    await _sleep(rhythm.pause_s(turn), wake, stopping)
        finally:
            notify("STOPPING=1")
            stopping.cancel()


async def _turn(agent: Agent) -> Turn:
    """One turn; an assigner that cannot be asked is waited for."""
    try:
        return await agent.turn()
    except WireError as error:
        _LOG.warning("cannot ask for orders: %s (%s)", error, error.code)
        return Turn.WAITING


async def _ended(turning: asyncio.Task[Turn]) -> Turn:
    """Stop in the middle of a turn: the journal says where to go on."""
    turning.cancel()
    await asyncio.wait({turning})
    if not turning.cancelled() and turning.exception() is None and turning.result() is Turn.EXIT:
        return Turn.EXIT
    return Turn.NOTHING


async def _sleep(seconds: float, wake: asyncio.Event, stopping: asyncio.Task[bool]) -> None:
    """Until the time is over, somebody asks, or the process must end."""
    waking = asyncio.create_task(wake.wait())
    try:
        await _any_of({waking, stopping}, seconds)
    finally:
        waking.cancel()
        wake.clear()


async def _any_of(tasks: set[asyncio.Task[bool]], timeout_s: float) -> None:
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
