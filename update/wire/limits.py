"""Bandwidth: a token bucket for all, one for each, and fair shares between those who wait.

Rules:

1. In any time of `t` seconds at most rate * t + burst bytes are granted, to all together and to each one under its own
   rate. The burst is what a quarter of a second carries, so that a late timer costs nothing.
2. Shares are max-min fair to within one block: whoever has been granted least since it came is next (start-time fair
   queueing: Goyal, Vin and Cheng 1996). Who is at its own rate waits apart, the others share what it leaves, and it is
   first when it comes back: a rate below the fair share is had in full.
3. Within one share it is first come, first served. Nobody starves: each grant moves its share behind those that wait.
4. A rate may change at any time: it is asked for at each grant, and every `_LOOK_S` while somebody waits.

Clock and timers are passed in: an event loop, or a simulation in tests.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

Rate = Callable[[], int]
"""Bytes per second as of now; 0: no limit."""

_BURST_S: Final = 0.25
_LEAST_BURST_BYTES: Final = 1024
_BLOCK_BYTES: Final = 64 << 10
_UNLIMITED_BURST_BYTES: Final = 1 << 20
_LOOK_S: Final = 15.0
_SHORTEST_S: Final = 0.001
_FORGET_S: Final = 900.0
_MANY: Final = 256


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> object:
        """Do not make it."""
        ...


class Clock(Protocol):
    """Seconds that never go back, and calls in the future: what an event loop has."""

    def time(self) -> float:
        """Now, in seconds."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call back in `delay` seconds."""
        ...


def fixed(bytes_per_s: int) -> Rate:
    """A rate that does not change; 0: no limit."""
    return lambda: bytes_per_s


class Bucket:
    """Tokens, one per byte: they come at `rate` and at most a burst of them is kept. Pure; `now_s` never goes back."""

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._filled_s = now_s
        self._tokens = float(self.burst_bytes)

    @property
    def limited(self) -> bool:
        """There is a limit now."""
        return self._rate() != 0

    @property
    def burst_bytes(self) -> int:
        """The most that can be spent at once."""
        rate = self._rate()
        return max(_LEAST_BURST_BYTES, int(rate * _BURST_S)) if rate else _UNLIMITED_BURST_BYTES

    def delay_s(self, count: int, now_s: float) -> float:
        """Seconds until `count` bytes, at most a burst, may be spent; 0.0: now."""
        rate = self._rate()
        if not rate:
            self._tokens, self._filled_s = float(self.burst_bytes), now_s
            return 0.0
        self._tokens = min(self.burst_bytes, self._tokens + rate * (now_s - self._filled_s))
        self._filled_s = now_s
        return 0.0 if self._tokens >= count else (count - self._tokens) / rate

    def spend(self, count: int) -> None:
        """Take tokens that `delay_s` said are there."""
        self._tokens -= count


@dataclass(slots=True, eq=False)
class _Wish:
    left_bytes: int
    granted: "asyncio.Future[None]"


class Share:
    """What one of many may have; made by `Shares.of`."""

    def __init__(self, shares: "Shares", bucket: Bucket, now_s: float) -> None:
        self._shares = shares
        self.bucket = bucket
        self.wishes: deque[_Wish] = deque()
        self.tag = 0  # what it was granted, counted from where the others were when it came
        self.queued = False
        self.used_s = now_s

    @property
    def step_bytes(self) -> int:
        """The most that is worth taking at once: what is sent in one piece after it was granted."""
        return min(self._shares.burst_bytes, self.bucket.burst_bytes)

    async def take(self, count: int) -> None:
        """Wait until `count` more bytes may pass; a wait that is cancelled gives its place up."""
        if count <= 0 or not (self.wishes or self._shares.limited or self.bucket.limited):
            return
        wish = _Wish(count, asyncio.get_running_loop().create_future())
        self._shares.enter(self, wish)
        await wish.granted


class Shares:
    """A rate that many share, each under a rate of its own. `rate` and `each` in bytes per second."""

    def __init__(self, rate: Rate, *, each: Rate = fixed(0), clock: Clock) -> None:  # noqa: B008 - a constant
        self._each = each
        self._clock = clock
        self._bucket = Bucket(rate, clock.time())
        self._shares: dict[str, Share] = {}
        self._ready: list[tuple[int, int, Share]] = []
        self._capped: list[tuple[float, int, Share]] = []
        self._served = 0  # the highest tag that was served: where one that comes begins
        self._entered = 0
        self._timer: Timer | None = None

    @property
    def limited(self) -> bool:
        """There is a limit for all together now."""
        return self._bucket.limited

    @property
    def burst_bytes(self) -> int:
        """The most that all together can be granted at once."""
        return self._bucket.burst_bytes

    def of(self, name: str) -> Share:
        """The share of whoever bears this name; one that has not been used for long is forgotten."""
        now = self._clock.time()
        share = self._shares.get(name)
        if share is None:
            if len(self._shares) >= _MANY:
                self._forget(now)
            share = self._shares[name] = Share(self, Bucket(self._each, now), now)
        share.used_s = now
        return share

    def enter(self, share: Share, wish: _Wish) -> None:
        """Have `wish` granted in its turn."""
        share.used_s = self._clock.time()
        share.wishes.append(wish)
        if not share.queued:
            share.tag = max(share.tag, self._served)
            self._queue(share, share.used_s)
        self._grant()

    def _grant(self) -> None:
        """Grant block by block as long as there are tokens, then have ourselves called again."""
        now = self._clock.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while True:
            while self._capped and self._capped[0][0] <= now:
                self._queue(heappop(self._capped)[2], now)
            if not self._ready:
                break
            tag, _, share = self._ready[0]
            count = self._block(share)
            if count and (delay_s := self._bucket.delay_s(count, now)):
                self._wake(min(delay_s, _LOOK_S))
                return
            heappop(self._ready)
            share.queued = False
            if count:
                self._served = max(self._served, tag)
                self._serve(share, count, now)
        if self._capped:
            self._wake(min(self._capped[0][0] - now, _LOOK_S))

    def _serve(self, share: Share, count: int, now: float) -> None:
        if share.bucket.delay_s(count, now) == 0.0:
            self._bucket.spend(count)
            share.bucket.spend(count)
            share.tag += count
            wish = share.wishes[0]
            wish.left_bytes -= count
            if not wish.left_bytes:
                share.wishes.popleft()
                wish.granted.set_result(None)
        if share.wishes:
            self._queue(share, now)

    def _queue(self, share: Share, now: float) -> None:
        """Among those who may have a block, or apart until its own rate allows the next one."""
        share.queued = True
        self._entered += 1
        if delay_s := share.bucket.delay_s(self._block(share), now):
            heappush(self._capped, (now + min(max(delay_s, _SHORTEST_S), _LOOK_S), self._entered, share))
        else:
            heappush(self._ready, (share.tag, self._entered, share))

    def _block(self, share: Share) -> int:
        """How much is granted next: equal for all but at the end of a wish; 0 where no wish is left."""
        while share.wishes and share.wishes[0].granted.done():  # cancelled
            share.wishes.popleft()
        return min(share.wishes[0].left_bytes, _BLOCK_BYTES, share.step_bytes // 2) if share.wishes else 0

    def _wake(self, delay_s: float) -> None:
        self._timer = self._clock.call_later(max(delay_s, _SHORTEST_S), self._grant)

    def _forget(self, now: float) -> None:
        stale = [name for name, each in self._shares.items() if not each.queued and now - each.used_s > _FORGET_S]
        for name in stale:
            del self._shares[name]
