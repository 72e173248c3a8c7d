"""How long a trial is held without word from the assigner.

Within one process the time is counted by the monotonic clock: the wall clock of a device without a battery jumps by years
when the network comes up, which is mostly right after the restart that began the hold. The wall clock counts only from one
process to the next, by what the journal says (`Entry.hold_until`), and only within limits: whatever it shows, at least
nothing and at most the whole time is left after a start.
"""

import time
from collections.abc import Callable


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Countdown:
    """The time left of one hold. `wall_ms`: milliseconds since the epoch; `monotonic_s`: seconds of any origin."""

    def __init__(self, wall_ms: Callable[[], int] = _wall_ms, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s
        self._end_s: float | None = None

    def begin(self, hold_s: int) -> int:
        """Count anew from now; what the journal keeps of it."""
        self._end_s = self._monotonic_s() + hold_s
        return self._wall_ms() + 1000 * hold_s

    def is_over(self, hold_s: int, hold_until: int) -> bool:
        """Whether nothing is left of `hold_s` seconds (0: no limit), which the journal lets end at `hold_until`."""
        if hold_s == 0:
            return False
        if self._end_s is None:
            left_s = (hold_until - self._wall_ms()) / 1000
            self._end_s = self._monotonic_s() + min(max(left_s, 0), hold_s)
        return self._monotonic_s() >= self._end_s
