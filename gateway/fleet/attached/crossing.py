"""From the thread of one device to the gateway's event loop and back.

Every device has a thread with an event loop of its own, so that a driver which blocks, or never ends, holds up nobody else. What
belongs to the gateway (database, store, relay) is used on the gateway's loop only, by what crosses here.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from update.errors import BusyError, StoreError, UnreachableError

_T = TypeVar("_T")


class Crossing:
    """Calls on the gateway's event loop; made there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def call(self, work: Callable[[], Coroutine[object, object, _T]]) -> _T:
        """The result of `work`, done on the gateway's loop; who is cancelled here cancels it there.

        Errors: those of `work`; what is wrong with the gateway's own disk or database is, to a device, `UnreachableError`.
        """
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return await asyncio.wrap_future(future)
        except (StoreError, BusyError) as error:
            raise UnreachableError(f"the gateway cannot answer now: {error} ({error.code})") from error
