"""Asks for bytes of one medium that is here, through the folder of intake (`media.records` says who writes what).

Several wants are open at a time, so that the medium is read while the gateway verifies what it has. What comes is not trusted.
A medium that is gone fails everything that waits for it, and everything that is asked afterwards.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from media.intake import Intake
from media.records import MAX_RANGES, MAX_WANTS, WANT_BYTES, Offer, Refusal, Stage, Want, Wants
from update.chunks.ranges import Range
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    LimitError,
    MediumGoneError,
    MediumUnreadableError,
    NotFoundError,
    ProtocolError,
)

AHEAD: Final = 3
"""Wants of one reader that are open at once: one is read here while others are read there."""
_LOOK_S: Final = 0.01
_LOOKS_PER_STATE: Final = 50
_OVER = frozenset({Stage.GONE, Stage.FAILED, Stage.IGNORED})
_NAMED = {each.code: each for each in (NotFoundError, ProtocolError, MediumUnreadableError, MediumGoneError)}


class Desk:
    """One visit of one medium. `taken` is called with the number of bytes that have come."""

    def __init__(self, intake: Intake, offer: Offer, taken: Callable[[int], None]) -> None:
        self._intake = intake
        self._offer = offer
        self._taken = taken
        self._open: dict[int, Want] = {}
        self._room = asyncio.Semaphore(MAX_WANTS)
        self._next = time.time_ns() // 1_000_000  # another process at this visit must not use a number again
        self._gone = False
        self._writing = asyncio.Lock()
        self._shown: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        """For logs and status."""
        return f"medium {self._offer.medium}"

    async def file(self, number: int, path: Sequence[str], max_bytes: int) -> bytes:
        """A whole small file. Errors: `EndlessDataError` beyond `max_bytes`, and those of `pieces`."""
        try:
            return await self._bring(number, path, (), length=min(max_bytes, WANT_BYTES))
        except LimitError as error:
            raise EndlessDataError(f"{'/'.join(path)} on the medium has more than {max_bytes} bytes") from error

    async def pieces(self, number: int, path: Sequence[str], ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges` in their order, in pieces of at most `WANT_BYTES`.

        Errors: `NotFoundError`, `ProtocolError` for what is no file, `MediumGoneError`, `MediumUnreadableError`.
        """
        waiting: list[tuple[tuple[Range, ...], asyncio.Task[bytes]]] = []
        portions = _portions(ranges)
        try:
            while portions or waiting:
                while portions and len(waiting) < AHEAD:
                    portion = portions.pop(0)
                    waiting.append((portion, asyncio.create_task(self._bring(number, path, portion))))
                portion, task = waiting.pop(0)
                data, position = memoryview(await task), 0
                for span in portion:
                    yield span.start, bytes(data[position : position + span.length])
                    position += span.length
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    async def _bring(self, number: int, path: Sequence[str], ranges: Sequence[Range], length: int = 0) -> bytes:
        async with self._room:
            spans = tuple((span.start, span.length) for span in ranges)
            want = Want(id=self._next, number=number, path=tuple(path), ranges=spans, length=length)
            self._next += 1
            self._open[want.id] = want
            try:
                await self._show(want)
                data = await self._wait(want)
            finally:
                del self._open[want.id]
                await asyncio.to_thread(self._intake.forget, want.id)
            if spans and len(data) != sum(size for _, size in spans):
                raise MediumUnreadableError(f"the reader of the medium brought {len(data)} bytes of {'/'.join(path)}")
            self._taken(len(data))
            return data

    async def _show(self, want: Want) -> None:
        """Have the reader see this want: one writer at a time, and once for all that were opened meanwhile."""
        if self._gone:
            raise MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
        async with self._writing:
            if want.id not in self._shown:
                wants = Wants(visit=self._offer.visit, wants=tuple(self._open.values()))
                await asyncio.to_thread(self._intake.write_wants, wants)
                self._shown = frozenset(each.id for each in wants.wants)

    async def _wait(self, want: Want) -> bytes:
        for look in range(1 << 60):
            if (data := await asyncio.to_thread(self._brought, want)) is not None:
                return data
            if self._gone or (look % _LOOKS_PER_STATE == 0 and await asyncio.to_thread(self._is_over)):
                self._gone = True
                raise MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
            await asyncio.sleep(_LOOK_S)
        raise AssertionError("a look without end")

    def _brought(self, want: Want) -> bytes | None:
        content = self._intake.content(want.id)
        try:
            with content.open("rb") as file:
                return file.read(WANT_BYTES + 1)
        except FileNotFoundError:
            refusal = self._intake.refusal(want.id)
        except OSError as error:
            raise MediumUnreadableError(f"cannot read {content}: {error.strerror}") from error
        if refusal is not None:
            raise _refused(refusal)
        return None

    def _is_over(self) -> bool:
        state, offer = self._intake.state(), self._intake.offer()
        return offer is None or offer.visit != self._offer.visit or (state is not None and state.stage in _OVER)


def _refused(refusal: Refusal) -> FieldrelayError:
    """The reader's refusal under its own name, where it is one that a reader gives."""
    if refusal.code == LimitError.code:
        return LimitError(refusal.message)
    return _NAMED.get(refusal.code, MediumUnreadableError)(refusal.message)


def _portions(ranges: Sequence[Range]) -> list[tuple[Range, ...]]:
    """`ranges` in their order, cut into what one want may bring."""
    portions: list[tuple[Range, ...]] = []
    present: list[Range] = []
    size = 0
    for span in ranges:
        start = span.start
        while start < span.end:
            length = min(span.end - start, WANT_BYTES - size)
            present.append(Range(start, length))
            start, size = start + length, size + length
            if size == WANT_BYTES or len(present) == MAX_RANGES:
                portions.append(tuple(present))
                present, size = [], 0
    return [*portions, tuple(present)] if present else portions
