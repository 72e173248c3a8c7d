"""Brings what the gateway asks for from one medium; judges nothing, and keeps nothing.

It offers what was recognised, then serves wants in their order until the gateway has all that it wants (its answer is beyond
`adopting`), the medium is gone, or it is told to stop. What it brings may be other bytes than the medium shows the next time: the
gateway verifies what it takes. A want that cannot be brought is refused by name, and the others go on; a medium that is gone ends
everything, and the gateway keeps what it has for the next visit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final
from uuid import uuid4

from media.intake import Intake
from media.medium import Medium, shown
from media.recogniser import Found, recognise
from media.records import (
    WANT_BYTES,
    Answer,
    Course,
    MediumState,
    Offer,
    Recognised,
    Refusal,
    Stage,
    Want,
)
from update.errors import (
    FieldrelayError,
    LimitError,
    MediumError,
    MediumGoneError,
    MediumUnreadableError,
    NotFoundError,
    WireError,
)

_LOG = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 1 << 20
_BUSY_S: Final = 0.02
_IDLE_S: Final = 0.2
_SHOWN_EVERY_S: Final = 0.5
_NOTHING = "nothing on it is meant for this gateway"


def _always() -> bool:
    """A folder does not go away."""
    return True


async def _nothing() -> str:
    """There is nothing left to do."""
    return ""


@dataclass(frozen=True, slots=True)
class Visit:
    """A medium that is here now. `label` is for people; `now` gives seconds since the epoch, `clock` never goes back.

    `left_in`: it was there when this process started. `present`: whether it still is. `finish` is what is done with it after all
    was brought, and before people are told that it may be pulled out; it gives what they are told besides.
    """

    medium: Medium
    label: str
    writable: bool
    now: Callable[[], float]
    clock: Callable[[], float]
    left_in: bool = False
    present: Callable[[], bool] = _always
    finish: Callable[[], Awaitable[str]] = _nothing


class Importer:
    """One visit of one medium. `told` is called with every new state, besides its being written."""

    def __init__(self, visit: Visit, intake: Intake, told: Callable[[MediumState], None]) -> None:
        self._visit = visit
        self._intake = intake
        self._told = told
        self._name = str(uuid4())
        self._found: Sequence[Found] = ()
        self._state = MediumState(medium=intake.medium, label=visit.label, stage=Stage.FOUND, since=int(visit.now()))
        self._shown_s = float("-inf")

    async def run(self) -> MediumState:
        """Serve until nothing more is wanted; the last state. Errors of the medium are in it; raises `StoreError`."""
        try:
            await asyncio.to_thread(self._intake.begin)
            self._show(self._state)
            self._enter(Stage.CHECKING)
            self._found = await asyncio.to_thread(recognise, self._visit.medium)
            if not self._found:
                self._enter(Stage.NOTHING_NEW, message=await self._visit.finish() or _NOTHING)
            else:
                await asyncio.to_thread(self._intake.write_offer, self._offer())
                await self._serve()
        except MediumGoneError as error:
            self._enter(Stage.GONE, code=error.code, message=str(error))
        except (MediumError, WireError) as error:
            self._enter(Stage.FAILED, code=error.code, message=str(error))
        return self._state

    def _offer(self) -> Offer:
        found = [
            Recognised(number=number, kind=each.kind, name=shown(each.parts), size_bytes=each.size_bytes)
            for number, each in enumerate(self._found)
        ]
        return Offer(
            medium=self._intake.medium,
            visit=self._name,
            label=self._visit.label,
            left_in=self._visit.left_in,
            found=tuple(found),
            writable=self._visit.writable,
        )

    async def _serve(self) -> None:
        done: set[int] = set()
        while True:
            wants = await asyncio.to_thread(self._intake.wants)
            fresh = [] if wants is None or wants.visit != self._name else [want for want in wants.wants if want.id not in done]
            for want in fresh:
                await asyncio.to_thread(self._bring, want)
                done.add(want.id)
            answer = self._settled()
            if answer is not None:
                self._end(answer, await self._visit.finish())
                return
            if not self._visit.present():
                raise MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
            await asyncio.sleep(_BUSY_S if fresh else _IDLE_S)

    def _settled(self) -> Answer | None:
        """Show how far the gateway is; its answer once it wants nothing more."""
        answer = self._intake.answer()
        if answer is None or answer.visit != self._name:
            return None
        if answer.course is not Course.ADOPTING:
            return answer
        if answer.wanted_bytes:
            self._enter(Stage.COPYING, done=answer.taken_bytes, total=answer.wanted_bytes)
        return None

    def _end(self, answer: Answer, besides: str) -> None:
        copied = answer.taken_bytes > 0 or answer.course is not Course.DONE
        failed = answer.course is Course.FAILED
        stage = Stage.FAILED if failed else Stage.SAFE if copied else Stage.NOTHING_NEW
        self._state = replace(self._state, contents=answer.contents)
        message = answer.message or besides
        self._enter(stage, done=answer.taken_bytes, total=answer.wanted_bytes, code=answer.code, message=message)

    def _bring(self, want: Want) -> None:
        final = self._intake.content(want.id)
        part = final.with_name(f".{final.name}")
        try:
            with self._open(want) as source, self._intake.disk.open(part, fresh=True, mode=0o660) as copy:
                written = 0
                for block in _blocks(source, want):
                    copy.write_at(written, block)
                    written += len(block)
            self._intake.disk.show(part, final)
        except MediumGoneError:
            raise
        except OSError as error:
            self._refuse(want, self._named(error, want))
        except FieldrelayError as error:
            self._refuse(want, error)

    def _open(self, want: Want) -> BinaryIO:
        if want.number >= len(self._found):
            raise LimitError(f"want {want.id} names thing {want.number} of {len(self._found)} on the medium")
        return self._visit.medium.open((*self._found[want.number].parts, *want.path))

    def _named(self, error: OSError, want: Want) -> FieldrelayError:
        named = self._visit.medium.trouble(error, (*self._found[want.number].parts, *want.path))
        if isinstance(named, MediumGoneError):
            raise named from error
        return named

    def _refuse(self, want: Want, error: FieldrelayError) -> None:
        level = logging.INFO if isinstance(error, NotFoundError) else logging.WARNING  # a stick rarely holds everything
        _LOG.log(level, "want %s cannot be brought: %s (%s)", want.id, error, error.code)
        self._intake.refuse(want.id, Refusal(code=error.code, message=str(error)[:1000]))

    def _enter(self, stage: Stage, *, done: int = 0, total: int = 0, code: str = "", message: str = "") -> None:
        """Show a state: each stage at once, progress within a stage now and then."""
        fresh = replace(self._state, done_bytes=done, total_bytes=total, code=code[:300], message=message[:1000])
        if stage is not self._state.stage:
            fresh = replace(fresh, stage=stage, since=int(self._visit.now()))
        elif self._visit.clock() - self._shown_s < _SHOWN_EVERY_S:
            return
        if fresh != self._state:
            self._show(fresh)

    def _show(self, state: MediumState) -> None:
        self._state, self._shown_s = state, self._visit.clock()
        self._intake.write_state(state)
        self._told(state)


def _blocks(source: BinaryIO, want: Want) -> Iterator[bytes]:
    """The bytes of a want. Errors: `LimitError` for more than `WANT_BYTES`, `MediumUnreadableError` where the file ends early."""
    if want.ranges:
        if sum(length for _, length in want.ranges) > WANT_BYTES:
            raise LimitError(f"want {want.id} asks for more than {WANT_BYTES} bytes at once")
        for start, length in want.ranges:
            source.seek(start)
            yield from _exactly(source, length, start)
        return
    data = _read(source, want.length + 1)
    if len(data) > want.length:
        raise LimitError(f"the file of want {want.id} is longer than the {want.length} bytes that are read of it")
    yield data


def _exactly(source: BinaryIO, length: int, start: int) -> Iterator[bytes]:
    missing = length
    while missing:
        block = source.read(min(_BLOCK_BYTES, missing))
        if not block:
            end = start + length - missing
            raise MediumUnreadableError(f"a file on the medium ends at byte {end}, byte {start + length - 1} was asked for")
        missing -= len(block)
        yield block


def _read(source: BinaryIO, most: int) -> bytes:
    data = b""
    while len(data) < most and (block := source.read(min(_BLOCK_BYTES, most - len(data)))):
        data += block
    return data
