"""Work that several want at the same time is done once, for all of them.

It belongs to nobody who waits: who goes away disturbs nobody, and who comes while it runs gets the same result or the same
error. Nothing is remembered: who comes later begins anew.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


class SingleFlight(Generic[_Key, _Result]):
    """At most one flight for each key; used on one event loop."""

    def __init__(self) -> None:
        self._flights: dict[_Key, asyncio.Task[_Result]] = {}

    def __contains__(self, key: _Key) -> bool:
        """Whether a flight is under way."""
        return key in self._flights

    async def share(self, key: _Key, work: Callable[[], Coroutine[None, None, _Result]]) -> _Result:
        """The result of the flight under way, or of a new one that does `work`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_task(work())
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        flights = tuple(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, key: _Key, flight: "asyncio.Task[_Result]") -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # looked at: everybody who waited may have gone
