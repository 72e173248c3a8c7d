"""How long to wait and how often to try again: decisions over numbers, with clock, sleep and chance passed in.

Slow retrieval (TUF 1.0, section 1.5.2): a peer that trickles bytes can hold an update back for ever without ever failing.
So the rate is judged over windows of *waiting*: the time in which we waited for the peer counts, the time in which we were
busy writing does not.

Retries wait a random time up to a limit that doubles (full jitter), so that a hundred nodes do not come back together.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from update.errors import SlowError


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of one request. The answer may take long: a gateway holds a request while it fetches from upstream."""

    connect_s: float = 20.0
    answer_s: float = 300.0
    deadline_s: float = 120.0  # the whole of a small answer: metadata, messages
    window_s: float = 30.0
    minimum_bytes_per_s: float = 1000.0


class RateGuard:
    """Watches one answer. `total_s` bounds the waiting of the whole answer; None for content of any size."""

    def __init__(self, patience: Patience, source: str, *, total_s: float | None = None) -> None:
        self._patience = patience
        self._source = source
        self._left_s = total_s
        self._waited_s = 0.0
        self._received_bytes = 0

    def allowance_s(self) -> float:
        """How long to wait for the next bytes before `note` must be told."""
        window = self._patience.window_s - self._waited_s
        return max(0.001, window if self._left_s is None else min(window, self._left_s))

    def note(self, waited_s: float, received_bytes: int) -> None:
        """Count one wait and what it brought; `SlowError` once a window, or the whole, was not enough."""
        self._waited_s += waited_s
        self._received_bytes += received_bytes
        if self._left_s is not None:
            self._left_s -= waited_s
            if self._left_s <= 0:
                raise SlowError(f"{self._source} did not finish its answer in time; try again or choose another source")
        if self._waited_s < self._patience.window_s:
            return
        rate = self._received_bytes / self._waited_s
        if rate < self._patience.minimum_bytes_per_s:
            raise SlowError(
                f"{self._source} sent {rate:.0f} bytes/s over {self._waited_s:.0f} s, at least "
                f"{self._patience.minimum_bytes_per_s:.0f} are required; check the line or choose another source"
            )
        self._waited_s, self._received_bytes = 0.0, 0


@dataclass(frozen=True, slots=True)
class Retry:
    """How failures are repeated: `attempts` in a row without progress, then the last failure is raised."""

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the n-th failure in a row (from 1)."""
        return self.chance() * min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))

    async def pause(self, failures: int) -> None:
        """Wait before the next try."""
        await self.sleep(self.delay_s(failures))
