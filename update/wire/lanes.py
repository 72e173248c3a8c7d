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
    waiting = deque(sources)
    arrived: asyncio.Queue[_Event | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD * at_once)

    async def work() -> None:
        while waiting:
            async with aclosing(waiting.popleft()) as events:
                async for event in events:
                    await room.acquire()
                    arrived.put_nowait(event)

    workers = [asyncio.get_running_loop().create_task(work()) for _ in range(min(at_once, len(sources)))]
    for worker in workers:
        worker.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        for _ in workers:
            while (event := await arrived.get()) is not None:
                room.release()
                yield event
            if any(_failure(worker) for worker in workers):
                break
        while not arrived.empty():
            if (event := arrived.get_nowait()) is not None:
                yield event
        for failure in filter(None, map(_failure, workers)):
            raise failure
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _failure(worker: "asyncio.Task[None]") -> BaseException | None:
    return worker.exception() if worker.done() and not worker.cancelled() else None
