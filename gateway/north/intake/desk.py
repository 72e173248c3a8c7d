"""Asks for bytes of one medium that is here, through the folder of intake (`media.records` says who writes what).

Several wants are open at a time, so that the medium is read while the gateway verifies what it has. What comes is not trusted.
A medium that is gone fails everything that waits for it, and everything that is asked afterwards.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
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
        want = self._want(number, path, (), length=min(max_bytes, WANT_BYTES))
        try:
            data = await asyncio.to_thread(_read, await self._arrival(want))
        except LimitError as error:
            raise EndlessDataError(f"{'/'.join(path)} on the medium has more than {max_bytes} bytes") from error
        finally:
            await self._drop(want)
        self._taken(len(data))
        return data

    async def pieces(self, number: int, path: Sequence[str], ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges` in their order, in pieces of at most `WANT_BYTES`.

        Errors: `NotFoundError`, `ProtocolError` for what is no file, `MediumGoneError`, `MediumUnreadableError`.
        """
        async with aclosing(self.portions(number, path, ranges)) as portions:
            async for portion, file in portions:
                data, position = await asyncio.to_thread(_read, file), 0
                for span in portion:
                    yield span.start, data[position : position + span.length]  # the whole of it is no copy
                    position += span.length

    async def portions(
        self, number: int, path: Sequence[str], ranges: Sequence[Range]
    ) -> AsyncGenerator[tuple[tuple[Range, ...], Path], None]:
        """Yield `ranges` in their order, in portions of at most `WANT_BYTES`, each with the file that holds its bytes.

        The file is removed when the next portion is asked for. Errors: as `pieces`.
        """
        waiting: list[tuple[tuple[Range, ...], Want, asyncio.Task[Path]]] = []
        portions = _portions(ranges)
        try:
            while portions or waiting:
                while portions and len(waiting) < AHEAD:
                    want = self._want(number, path, portions[0])
                    waiting.append((portions.pop(0), want, asyncio.create_task(self._arrival(want))))
                portion, want, task = waiting[0]
                yield portion, await task
                self._taken(_size(portion))
                del waiting[0]
                await self._drop(want)
        finally:
            for _, _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, _, task in waiting), return_exceptions=True)
            for _, want, _ in waiting:
                await self._drop(want)

    def _want(self, number: int, path: Sequence[str], ranges: Sequence[Range], length: int = 0) -> Want:
        spans = tuple((span.start, span.length) for span in ranges)
        self._next += 1
        return Want(id=self._next, number=number, path=tuple(path), ranges=spans, length=length)

    async def _arrival(self, want: Want) -> Path:
        """Ask for a want once there is room, and wait for it; `_drop` ends it in any case."""
        await self._room.acquire()
        self._open[want.id] = want
        await self._show(want)
        file = await self._wait(want)
        wanted = sum(length for _, length in want.ranges)
        if want.ranges and (size := (await asyncio.to_thread(file.stat)).st_size) != wanted:
            raise MediumUnreadableError(f"the reader of the medium brought {size} of {wanted} bytes of {'/'.join(want.path)}")
        return file

    async def _drop(self, want: Want) -> None:
        if self._open.pop(want.id, None) is not None:
            self._room.release()
            await asyncio.to_thread(self._intake.forget, want.id)

    async def _show(self, want: Want) -> None:
        """Have the reader see this want: one writer at a time, and once for all that were opened meanwhile."""
        if self._gone:
            raise MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
        async with self._writing:
            if want.id not in self._shown:
                wants = Wants(visit=self._offer.visit, wants=tuple(self._open.values()))
                await asyncio.to_thread(self._intake.write_wants, wants)
                self._shown = frozenset(each.id for each in wants.wants)

    async def _wait(self, want: Want) -> Path:
        for look in range(1 << 60):
            if await asyncio.to_thread(self._is_here, want):
                return self._intake.content(want.id)
            if self._gone or (look % _LOOKS_PER_STATE == 0 and await asyncio.to_thread(self._is_over)):
                self._gone = True
                raise MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
            await asyncio.sleep(_LOOK_S)
        raise AssertionError("a look without end")

    def _is_here(self, want: Want) -> bool:
        """Whether a want has come. Errors: the reader's refusal."""
        if self._intake.content(want.id).exists():
            return True
        if (refusal := self._intake.refusal(want.id)) is not None:
            raise _refused(refusal)
        return False

    def _is_over(self) -> bool:
        state, offer = self._intake.state(), self._intake.offer()
        return offer is None or offer.visit != self._offer.visit or (state is not None and state.stage in _OVER)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(WANT_BYTES)
    except OSError as error:
        raise MediumUnreadableError(f"cannot read {file}: {error.strerror}") from error


def _size(portion: Sequence[Range]) -> int:
    return sum(span.length for span in portion)


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
