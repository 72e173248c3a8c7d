"""Makes patches, one at a time, in a process that is ended when it takes too long; nothing half-done is left.

Rules:

1. Everybody who asks for the same pair waits for the same patch. Orders that wait are few (`MAX_WAITING`).
2. A patch is worth making if it saves something: what it leads to must take at least `MIN_CHUNK_BYTES` of chunks from what
   it leads from, and a patch that grows larger than those chunks is given up.
3. Room for the largest patch that is of use is asked for before anything is made.
4. What failed is not tried again for `AGAIN_S`: another node that asks is told why.
"""

import asyncio
import logging
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from gateway.south.pairs.maker import OUTCOME, Job, Outcome
from gateway.south.pairs.shelf import Pair, Shelf
from update.chunks.plan import Source, plan_delta
from update.chunks.unpack import read_header
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest
from update.errors import BusyError, FieldrelayError, LimitError, SlowError, StoreError, UnsupportedError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 16
MIN_CHUNK_BYTES: Final = 64 << 10
AGAIN_S: Final = 3600.0
_MAX_FAILURES: Final = 256
_FIRST_GUESS_S: Final = 10.0
_MOST_WAIT_S: Final = 120
_MAX_OUTPUT_BYTES: Final = 64 << 10
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
COMMAND: Final = (sys.executable, "-P", "-m", "gateway.south.pairs.maker")

Grow = Callable[[TargetInfo, int], Awaitable[None]]
"""Makes room for so many more bytes on behalf of a target; `NoSpaceError` if there is none."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What making one patch may take: sizes in bytes, time in seconds."""

    max_image_bytes: int
    maker_memory_bytes: int
    maker_time_s: int


@dataclass(frozen=True, slots=True)
class Order:
    """One patch to make, from two complete `.zck` files; `target` is what the new one is of."""

    pair: Pair
    old: Path
    new: Path
    target: TargetInfo


class Workshop:
    """`command` begins the maker's command line. Used on one event loop, which `run` keeps busy."""

    def __init__(self, shelf: Shelf, grow: Grow, bounds: Bounds, *, command: tuple[str, ...] = COMMAND) -> None:
        self._shelf = shelf
        self._grow = grow
        self._bounds = bounds
        self._command = command
        self._waiting: deque[Order] = deque()
        self._current: Order | None = None
        self._failures: OrderedDict[Pair, tuple[float, FieldrelayError]] = OrderedDict()
        self._wake = asyncio.Event()
        self._usual_s = _FIRST_GUESS_S

    def wait_s(self, pair: Pair) -> int | None:
        """In about how many seconds the patch will be there; None if it was not ordered."""
        ahead = [*([self._current] if self._current else []), *self._waiting]
        for number, order in enumerate(ahead, 1):
            if order.pair == pair:
                return max(1, min(_MOST_WAIT_S, ceil(number * self._usual_s)))
        return None

    def failure(self, pair: Pair) -> FieldrelayError | None:
        """Why there is no such patch, if it was tried lately."""
        known = self._failures.get(pair)
        if known is None or asyncio.get_running_loop().time() - known[0] > AGAIN_S:
            return None
        return known[1]

    def order(self, order: Order) -> None:
        """Make it when its turn comes; ordered already: once is enough. `BusyError` if too many wait."""
        if self.wait_s(order.pair) is not None:
            return
        if len(self._waiting) >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} patches wait to be made; take the chunks, or ask again later")
        self._waiting.append(order)
        self._wake.set()

    async def run(self) -> None:
        """Make what is ordered, until cancelled. What an earlier run left half-done goes first."""
        await asyncio.to_thread(self._sweep)
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            self._current = self._waiting.popleft()
            try:
                await self._make_or_note(self._current)
            finally:
                self._current = None

    def _sweep(self) -> None:
        try:
            self._shelf.sweep()
        except StoreError as error:
            _log.warning("pair patches: what was left half-done stays: %s (%s)", error, error.code)

    async def _make_or_note(self, order: Order) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            size = await self._make(order)
        except FieldrelayError as error:
            _log.info("no pair patch to %s: %s (%s)", order.target.path, error, error.code)
            self._failures[order.pair] = loop.time(), error
            self._failures.move_to_end(order.pair)
            while len(self._failures) > _MAX_FAILURES:
                self._failures.popitem(last=False)
            return
        taken_s = loop.time() - started_s
        self._usual_s = taken_s
        _log.info("made a pair patch of %d bytes to %s in %.1f s", size, order.target.path, taken_s)

    async def _make(self, order: Order) -> int:
        """The patch's size in bytes, once it is on the shelf."""
        max_bytes = await asyncio.to_thread(_worth_bytes, order, self._bounds.max_image_bytes)
        await self._grow(order.target, max_bytes)
        job = self._job(order, max_bytes)
        try:
            outcome = await self._run(job)
            made = await asyncio.to_thread(self._shelf.keep, order.pair, Digest(outcome.sha256))
        finally:
            with suppress(StoreError):  # the next start sweeps it
                self._shelf.drop_part(order.pair)
        return made.size

    def _job(self, order: Order, max_bytes: int) -> Job:
        pair, bounds = order.pair, self._bounds
        return Job(
            old=order.old,
            old_header=pair.old,
            new=order.new,
            new_header=pair.new,
            out=self._shelf.part(pair),
            form=pair.form,
            memory_bytes=pair.memory_bytes,
            max_bytes=max_bytes,
            maker_memory_bytes=bounds.maker_memory_bytes,
            maker_time_s=bounds.maker_time_s,
        )

    async def _run(self, job: Job) -> Outcome:
        """Run the maker to its end, or end it. Its standard input stays open as long as this process lives."""
        process = await self._start(job)
        try:
            async with asyncio.timeout(self._bounds.maker_time_s):
                output = await _read_all(process)
                status = await process.wait()
        except TimeoutError as error:
            limit_s = self._bounds.maker_time_s
            raise SlowError(f"the patch was not made in {limit_s} s (south.pair_patches.maker_time_s)") from error
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
        return _outcome(output, status)

    async def _start(self, job: Job) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        both, environment = asyncio.subprocess.STDOUT, _environment()
        try:
            return await asyncio.create_subprocess_exec(
                *self._command, job.as_json(), stdin=pipe, stdout=pipe, stderr=both, env=environment
            )
        except OSError as error:  # no memory, or no process left
            raise BusyError(f"cannot start the maker of patches: {error.strerror or error}") from error


def _worth_bytes(order: Order, max_image_bytes: int) -> int:
    """How large the patch may be to be of use. Errors: `LimitError`, `BundleError` of the headers, `StoreError`."""
    old, new = _header(order.old), _header(order.new)
    if (largest := max(old.image_size, new.image_size)) > max_image_bytes:
        limit = f"patches are made up to {max_image_bytes} (south.pair_patches.max_image_bytes)"
        raise LimitError(f"an image of {largest} bytes, {limit}")
    chunk_bytes = plan_delta(new, Source.of_index(old)).fetch_bytes
    if chunk_bytes < MIN_CHUNK_BYTES:
        raise LimitError(f"the chunks take {chunk_bytes} bytes: less than {MIN_CHUNK_BYTES} are not worth a patch")
    return chunk_bytes


def _header(path: Path) -> HeaderIndex:
    try:
        with path.open("rb") as file:
            return read_header(file)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def _environment() -> Mapping[str, str]:
    """Ours, and numerical libraries kept from reserving memory for threads that would not be used."""
    return {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    """What the maker writes, the end of it."""
    output = b""
    if process.stdout is not None:
        while piece := await process.stdout.read(_MAX_OUTPUT_BYTES):
            output = (output + piece)[-_MAX_OUTPUT_BYTES:]
    return output


def _outcome(output: bytes, status: int) -> Outcome:
    """The last line; `UnsupportedError` with the maker's own words if there is no patch."""
    try:
        outcome = OUTCOME.validate_json(output.splitlines()[-1] if output else b"")
    except ValidationError as error:
        last = output[-300:].decode(errors="replace").strip()
        raise UnsupportedError(f"the maker ended with status {status}: {last or 'it said nothing'}") from error
    if outcome.code or status:
        raise UnsupportedError(f"{outcome.message} ({outcome.code})")
    return outcome
