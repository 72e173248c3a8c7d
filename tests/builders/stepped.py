"""An event loop that is driven by hand: nothing happens but what the test has happen, so every run can be repeated.

loop = SteppedLoop()
task = loop.create_task(work())
loop.step(3)                 # what is ready, three times
loop.threads.do(0)           # what was handed to a thread is done here, in any order
loop.now_s += 10             # timers that are due go off at the next step
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class SteppedThreads(ThreadPoolExecutor):
    """No threads: the work waits until it is told to be done."""

    def __init__(self) -> None:
        super().__init__(1)
        self._waiting: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, work: Callable[_Given, _Result], /, *arguments: _Given.args, **named: _Given.kwargs) -> "Future[_Result]":
        """Queue it; what is cancelled before it begins is never begun."""
        future: Future[_Result] = Future()
        self._waiting.append(partial(_run, future, partial(work, *arguments, **named)))
        return future

    def do(self, place: int) -> None:
        """Do one piece of work; `place` counts around."""
        if self._waiting:
            self._waiting.pop(place % len(self._waiting))()


def _run(future: "Future[_Result]", work: Callable[[], _Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - as a thread does: it is for who waits
        future.set_exception(error)
    else:
        future.set_result(result)


class SteppedLoop(asyncio.SelectorEventLoop):
    """`now_s` is its time. Close it when no task is left."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__()
        self.threads = SteppedThreads()
        self.set_default_executor(self.threads)

    def time(self) -> float:
        return self.now_s

    def step(self, times: int = 1) -> None:
        """Have everything run that is ready, and nothing that gets ready by it; so many times."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

    def drain(self, done: Callable[[], bool], *, tick_s: float = 0.01, rounds: int = 3000) -> None:
        """Let everything happen in its natural order until `done`; `AssertionError` when that does not come."""
        for _ in range(rounds):
            if done():
                return
            self.step(4)
            self.threads.do(0)
            self.now_s += tick_s
        raise AssertionError(f"after {rounds} rounds still at work: {[task.get_coro() for task in asyncio.all_tasks(self)]}")
