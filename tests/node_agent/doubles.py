"""A device, an assigner and a supply of bundles that do exactly what a test says."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node_agent.drivers.driver import Capabilities, ChunkSource, Restart, SlotState, SlotStatus, Written
from node_agent.record import Release, Report
from node_agent.source import Cancel, Offer
from tests.builders.bundles import describe, signed, verified
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.chunks.pair import PatchOffer
from update.digest import Digest
from update.errors import FieldrelayError, SlotError
from update.trust.floor_values import FloorValues

OLD, NEW = Digest("0" * 64), Digest("1" * 64)


@dataclass
class Device:
    """`Driver` of a two-slot device in memory; `hangs` in a write until it `goes_on`.

    `fail` maps a call to errors that it raises, in order.
    """

    booted: str = "a"
    trial: str | None = None
    states: dict[str, SlotState] = field(default_factory=lambda: {"a": SlotState.ACTIVE, "b": SlotState.EMPTY})
    bundles: dict[str, Digest] = field(default_factory=lambda: {"a": OLD})
    calls: list[str] = field(default_factory=list)
    fail: dict[str, list[FieldrelayError]] = field(default_factory=dict)
    restarts: Restart = Restart.BY_EXIT
    hangs: bool = False
    comes_up: bool = True
    crashes: bool = False
    wrong_slot: bool = False
    can_hold: bool = True
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(stage=True, trial=True, hold=self.can_hold, revert=True, resume=True, needs_power_cycle=False)

    @property
    def other(self) -> str:
        return "b" if self.booted == "a" else "a"

    async def slots(self) -> tuple[SlotStatus, ...]:
        self._maybe_fail("slots", log=False)
        return tuple(
            SlotStatus(name, self.states[name], None, self.bundles.get(name), self.booted == name, self.trial == name)
            for name in ("a", "b")
        )

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Callable[[int, int], None]) -> Written:
        del chunks
        self.states[self.other] = SlotState.EMPTY
        self._maybe_fail("write")
        progress(50, 100)
        if self.hangs:
            await self._hang()
        self.states[self.other], self.bundles[self.other] = SlotState.PENDING, bundle.digest
        return Written(self.booted if self.wrong_slot else self.other, 100, 60, 30, 10)

    async def _hang(self) -> None:
        """A write that takes its time, also to stop."""
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            for _ in range(20):
                await asyncio.sleep(0)
            self.calls.append("write stopped")
            raise

    async def activate(self) -> None:
        self._maybe_fail("activate")
        if self.states[self.other] is not SlotState.PENDING:
            raise SlotError("nothing was written")
        self.trial = self.other

    async def restart(self) -> Restart:
        self._maybe_fail("restart")
        if self.restarts is Restart.DONE:
            self.power_on()
        return self.restarts

    async def confirm(self) -> None:
        self._maybe_fail("confirm")
        previous = self.other
        self.trial, self.states[self.booted], self.states[previous] = None, SlotState.ACTIVE, SlotState.CONFIRMED

    async def revert(self) -> None:
        self._maybe_fail("revert")
        left = self.trial or self.booted
        self.trial, self.states[left] = None, SlotState.BAD
        self._next = "a" if left == "b" else "b"

    _next: str | None = None

    def power_on(self) -> None:
        """What the boot loader does: the trial if one is due and comes up, else back."""
        if self.trial is not None and not self.comes_up:
            self.states[self.trial], self.trial = SlotState.BAD, None
        self.booted = self.trial or self._next or self.booted
        if self.crashes and self.trial:
            self.states[self.trial] = SlotState.BAD
        self._next = None

    def _maybe_fail(self, call: str, *, log: bool = True) -> None:
        if log:
            self.calls.append(call)
        if self.fail.get(call):
            raise self.fail[call].pop(0)


@dataclass
class Assigner:
    """`Source`: `orders` are given one after the other, the last one until its end was reported; `at_last` when it was given.

    `given` is all that was given so far.
    """

    orders: list[Offer | Cancel | FieldrelayError | None]
    reports: list[Report] = field(default_factory=list)
    away: FieldrelayError | None = None
    at_last: asyncio.Event = field(default_factory=asyncio.Event)
    given: list[Offer | Cancel | FieldrelayError | None] = field(default_factory=list)

    async def next(self) -> Offer | Cancel | None:
        if len(self.orders) == 1:
            self.at_last.set()
        order = self.orders.pop(0) if len(self.orders) > 1 else self.orders[0]
        self.given.append(order)
        if isinstance(order, FieldrelayError):
            raise order
        return order

    async def report(self, report: Report) -> None:
        if self.away is not None:
            raise self.away
        self.reports.append(report)
        if report.final:
            ended = [order for order in self.orders if _is_end_of(report, order)]
            self.orders = [order for order in self.orders if order not in ended] or [None]

    @property
    def results(self) -> list[Report]:
        return [report for report in self.reports if report.final]


def _is_end_of(report: Report, order: Offer | Cancel | FieldrelayError | None) -> bool:
    """Whether a result ends what was ordered, and not an order of the same action under another lease."""
    if isinstance(order, Offer):
        return order.action == report.action and order.fence in {None, report.fence}
    return isinstance(order, Cancel) and order.action == report.action


class Supply:
    """`Content` with one real bundle; `fail` as of `Device`."""

    def __init__(self, folder: Path) -> None:
        self.bundle = verified(signed(folder, describe(scripts=[]), {}))
        self.release = Release("plant", "os.swu", NEW, 10, "1.2", "tuf", release_counter=2, security_counter=1)
        self.release = replace(self.release, bundle=self.bundle.digest)
        self.fail: dict[str, list[FieldrelayError]] = {}
        self.forgotten = 0
        self.obtained = 0
        self.hangs = False

    async def resolve(self, offer: Offer) -> Release:
        self._maybe_fail("resolve")
        return replace(self.release, path=offer.target or self.release.path)

    async def judge(self, release: Release, reason: str) -> None:
        del release, reason
        self._maybe_fail("judge")

    async def obtain(self, release: Release, progress: Callable[[int, int], None]) -> VerifiedBundle:
        del release, progress
        self.obtained += 1
        self._maybe_fail("obtain")
        if self.hangs:
            self.hangs = False
            await asyncio.Event().wait()
        return self.bundle

    def chunks(self) -> ChunkSource:
        return NoChunks()

    def forget(self) -> None:
        self.forgotten += 1

    def _maybe_fail(self, call: str) -> None:
        if self.fail.get(call):
            raise self.fail[call].pop(0)


class NoChunks:
    """A bundle without remote chunks asks for none."""

    async def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        assert not ranges, f"{url} is read"
        for start, length in ranges:
            yield start, bytes(length)

    async def find_patch(self, url: str, base: Digest) -> PatchOffer | None:
        raise AssertionError(f"a patch to {url} from {base} is asked for")

    def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        raise AssertionError(f"{url} {base} {offer}: no patch was offered")

    @property
    def patch_memory_bytes(self) -> int:
        return 0


@dataclass
class MemoryFloor:
    """The two counters of a floor."""

    values: FloorValues = field(default_factory=FloorValues)

    def confirm(self, *, release_counter: int, security_counter: int) -> FloorValues:
        self.values = replace(
            self.values,
            release_counter=max(release_counter, self.values.release_counter),
            security_counter=max(security_counter, self.values.security_counter),
        )
        return self.values

    def read(self) -> FloorValues:
        return self.values


class Well:
    """Health checks with a scripted answer: None is well. `answers` come first, one each time; `waits` is what it waits for."""

    name = "scripted"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self.answers: list[str | None] = []
        self.waits: asyncio.Event | None = None

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        del environment
        if self.waits is not None:
            await self.waits.wait()
        return self.answers.pop(0) if self.answers else self.reason
