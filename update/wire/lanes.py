"""Several streams of events as one: what comes first goes first, a failure ends all, and nothing goes on behind the reader."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

_Event = TypeVar("_Event")
_AHEAD: Final = 2


async def merged(sources: Sequence[AsyncGenerator[_Event, None]], *, at_once: int) -> AsyncGenerator[_Event, None]:
    """Read `at_once` of `sources` side by side, and the others after them; each keeps its own order.

    A source is `_AHEAD` events ahead of the reader at most. When one fails, what has come is still passed on, then its error
    is raised.
    """
    arrived: asyncio.Queue[_Event | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD * at_once)
    waiting = deque(sources)
    workers = [asyncio.get_running_loop().create_task(_work(waiting, arrived, room)) for _ in range(min(at_once, len(sources)))]
    for worker in workers:
        worker.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        for _ in workers:
            while (event := await arrived.get()) is not None:
                room.release()
                yield event
            if any(map(_failure, workers)):
                break
        _cancel(workers)
        while not arrived.empty():
            if (event := arrived.get_nowait()) is not None:
                yield event
        for failure in filter(None, map(_failure, workers)):
            raise failure
    finally:
        _cancel(workers)
        await asyncio.gather(*workers, return_exceptions=True)


async def _work(
    waiting: deque[AsyncGenerator[_Event, None]], arrived: "asyncio.Queue[_Event | None]", room: asyncio.Semaphore
) -> None:
    while waiting:
        async with aclosing(waiting.popleft()) as events:
            async for event in events:
                await room.acquire()
                arrived.put_nowait(event)


def _cancel(workers: list["asyncio.Task[None]"]) -> None:
    for worker in workers:
        worker.cancel()


def _failure(worker: "asyncio.Task[None]") -> BaseException | None:
    return worker.exception() if worker.done() and not worker.cancelled() else None
