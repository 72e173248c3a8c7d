"""A driver whose words end: what neither ends nor comes further for too long has failed.

The agent of an attached device runs beside others, for years, and nobody looks at it: a driver that hangs must become an error
with a name, which the agent treats like any other. A word that cannot be stopped holds the device: as long as it has not ended no
other word is said, for a driver never gets two at once. A driver that would restart the gateway's machine is refused.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Final, TypeVar

from node_agent.drivers.driver import Capabilities, ChunkSource, Driver, Progress, Restart, SlotStatus, Written
from update.bundle.verified import AnyBundle
from update.errors import HandlerError, SilentError

_T = TypeVar("_T")
_END_S: Final = 5.0


class BoundedDriver:
    """`Driver` over another one; `stalled_after_s` from the beginning of a word, or from the last progress of a write."""

    def __init__(self, driver: Driver, stalled_after_s: float) -> None:
        self._driver = driver
        self._stalled_after_s = stalled_after_s
        self._moved_s = 0.0
        self._hanging: tuple[str, asyncio.Task[object]] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Those of the device."""
        return self._driver.capabilities

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Every slot."""
        return await self._within("slots", self._driver.slots())

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Progress) -> Written:
        """Write; each progress is a new beginning."""

        def advance(done: int, total: int) -> None:
            self._moved_s = time.monotonic()
            progress(done, total)

        return await self._within("write", self._driver.write(bundle, chunks, advance))

    async def activate(self) -> None:
        """Open the trial."""
        await self._within("activate", self._driver.activate())

    async def restart(self) -> Restart:
        """Restart the device; the gateway's machine is not it."""
        answer = await self._within("restart", self._driver.restart())
        if answer is not Restart.DONE:
            raise HandlerError(f"the driver answers a restart with {answer}: it is none for a device that a gateway looks after")
        return answer

    async def confirm(self) -> None:
        """Keep what runs."""
        await self._within("confirm", self._driver.confirm())

    async def revert(self) -> None:
        """Return."""
        await self._within("revert", self._driver.revert())

    async def _within(self, word: str, work: Coroutine[object, object, _T]) -> _T:
        if self._hanging is not None and not self._hanging[1].done():
            work.close()
            raise SilentError(
                f"the driver still hangs in {self._hanging[0]}; nothing else is asked of the device until that ends"
            )
        self._hanging, self._moved_s = None, time.monotonic()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                left_s = self._moved_s + self._stalled_after_s - time.monotonic()
                if left_s <= 0:
                    break
                await asyncio.wait({task}, timeout=left_s)
            if task.done():
                return task.result()
        finally:
            await self._end(word, task)
        raise SilentError(
            f"the driver came no further in {word} for {self._stalled_after_s:g} s (stalled_after_s); it was stopped"
        )

    async def _end(self, word: str, task: "asyncio.Task[_T]") -> None:
        if task.done():
            return
        task.cancel()
        task.add_done_callback(_look_at)
        self._hanging = (word, task)
        await asyncio.wait({task}, timeout=_END_S)


def _look_at(task: "asyncio.Task[_T]") -> None:
    """What a stopped word ends with interests nobody."""
    if not task.cancelled():
        task.exception()
