"""A thread with an event loop of its own, in which one device's agent lives until something ends it.

Whatever is raised there, also what would end a process, ends this thread only. A thread that does not end when it is told to
(a driver that blocks for ever) is left behind; it ends with the process.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

BEAT_S: Final = 1.0
_HANDS: Final = 4
"""Further threads, for what blocks: few, since a service is granted only so many (`TasksMax`)."""
Work = Callable[[Callable[[], None]], Coroutine[object, object, None]]


class Life:
    """One life; used on the gateway's loop. `work` runs in the thread, and calls what it is given when all is well."""

    def __init__(self, name: str, work: Work) -> None:
        self._work = work
        self._ended: Future[BaseException | None] = Future()
        self._ended.set_running_or_notify_cancel()  # whoever waits may be cancelled; the thread is not by that
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.beat_s = time.monotonic()
        """When its loop was last seen to turn, on the clock of `time.monotonic`."""
        self.is_well = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def run(self) -> BaseException | None:
        """From the beginning to the end; what it ended with."""
        self._thread.start()
        return await asyncio.wrap_future(self._ended)

    async def stop(self, within_s: float) -> bool:
        """Tell it to end; whether it did."""
        self._stopping = True
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # its loop has just been closed
                loop.call_soon_threadsafe(task.cancel)
        await asyncio.to_thread(self._thread.join, within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        ended: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises must end its own thread only
            ended = error
        with suppress(RuntimeError):  # nobody waits any more: the gateway's loop is closed
            self._ended.set_result(ended)

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_HANDS))
        self._task = asyncio.current_task()
        if self._stopping:
            return
        beating = asyncio.create_task(self._beat())
        try:
            await self._work(self._note_well)
        finally:
            beating.cancel()

    def _note_well(self) -> None:
        self.is_well = True

    async def _beat(self) -> None:
        while True:
            self.beat_s = time.monotonic()
            await asyncio.sleep(BEAT_S)
