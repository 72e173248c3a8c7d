"""Long answers from a `.zck` that is still coming: sent while it comes, window by window.

An answer of several ranges is held until all of it is here (`content.py`), because stock clients do not survive a cut there.
One part that is long is another matter: over a slow line it would be held until the client gives up, and refused. So:

1. The head leaves when the first window is here. Until then a failure is a refusal by name, as it is everywhere.
2. While a window is sent the next one is fetched; more is not asked for. A client that goes away costs that much of the
   line, and where there is no room to store it, two windows of memory.
3. A window that does not come is asked for again as long as a request is held. Only then is the body cut, by a reset: the
   client sees from the Content-Length that something is missing, and asks for the rest (`curl -C -`, RFC 9110 section 14.2;
   the ETag names the content, so it can be sure that it is the rest of the same file).
4. swupdate takes a pause of up to 300 s in a body, and sends no plain GET for a `.zck`. What it asks for as one long range,
   an image of which it has nothing, it gets at the speed of the line; were it held, it would fail as soon as that takes
   longer than the client waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.south.files import Answer
from gateway.south.open_files import Lease
from gateway.south.pace import PACE
from gateway.south.range_response import BLOCK_BYTES, read_block
from gateway.south.relays import HOLD_S
from update.chunks.ranges import Range
from update.errors import FieldrelayError, SlowError, UnreachableError

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 15.0
_STALL_S: Final = 120.0
"""A client that takes nothing for so long is cut."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """Sizes in bytes and times of it.

    The default window is less than a second on a line of 20 Mbit/s, and twenty times what is under way there in 40 ms. One
    range of at most `from_bytes` is held instead: any line that is worth the name brings so much in the time.
    """

    window_bytes: int = 2 << 20
    from_bytes: int = 8 << 20
    hold_s: float = HOLD_S
    pause_s: float = 1.0


Lend = Callable[[Range], Awaitable[Lease]]
"""A descriptor that holds the bytes of a range, once they have come. Errors: `FieldrelayError`."""


class Windows:
    """What is lent of `span`, in order; at most two windows are asked for or held at any time."""

    def __init__(self, span: Range, lend: Lend, manner: Streaming) -> None:
        self._lend = lend
        self._manner = manner
        self._left = _windows(span, manner.window_bytes)
        self._coming: deque[tuple[Range, asyncio.Task[Lease]]] = deque()

    async def begin(self) -> None:
        """Return when the first window is here; it is asked for once, since a refusal is still possible."""
        self._ask(self._lend)
        self._ask(self._lend_at_last)
        try:
            await asyncio.wait([self._coming[0][1]])
            self._coming[0][1].result()
        except BaseException:  # also when the client goes away
            await self.close()
            raise

    async def current(self) -> tuple[Range, Lease] | None:
        """The window to be sent now, None behind the last one. Errors: `FieldrelayError`, after the time of a hold."""
        if not self._coming:
            return None
        span, task = self._coming[0]
        return span, await asyncio.shield(task)

    def next(self) -> None:
        """The current window was sent: give it back and ask for another one."""
        self._coming.popleft()[1].result().release()
        self._ask(self._lend_at_last)

    async def close(self) -> None:
        """Give back what is lent, and ask for nothing more."""
        tasks = [task for _, task in self._coming]
        self._coming.clear()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Lease):
                result.release()

    def _ask(self, lend: Lend) -> None:
        if span := next(self._left, None):
            self._coming.append((span, asyncio.ensure_future(lend(span))))

    async def _lend_at_last(self, span: Range) -> Lease:
        loop = asyncio.get_running_loop()
        begun_s, pause_s = loop.time(), self._manner.pause_s
        while True:
            try:
                return await self._lend(span)
            except (UnreachableError, SlowError):
                if loop.time() - begun_s + pause_s > self._manner.hold_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class StreamedResponse(web.StreamResponse):
    """One response of one part, as it comes; `windows` have begun and are closed at its end."""

    def __init__(self, answer: Answer, windows: Windows) -> None:
        _, *lines = answer.head.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = (line.partition(": ") for line in lines)
        super().__init__(status=answer.status, headers={name: value for name, _, value in fields})
        self._windows = windows

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send head and body; `ConnectionResetError` when the client has gone, and where the body had to be cut."""
        try:
            writer = await super().prepare(request)
            await self._send(request)
        finally:
            await self._windows.close()
        return writer

    async def _send(self, request: web.BaseRequest) -> None:
        sent = 0
        try:
            while current := await self._windows.current():
                span, lease = current
                await self._send_window(request, span, lease.descriptor)
                self._windows.next()
                sent += span.length
        except FieldrelayError as error:
            _log.warning("relay: the answer to %s is cut after %d bytes: %s (%s)", request.path, sent, error, error.code)
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the rest did not come") from error

    async def _send_window(self, request: web.BaseRequest, span: Range, descriptor: int) -> None:
        share = request.get(PACE)
        most = BLOCK_BYTES if share is None else min(BLOCK_BYTES, share.step_bytes)
        offset = span.start
        while offset < span.end:
            block = await read_block(descriptor, offset, min(most, span.end - offset))
            if not block:
                raise UnreachableError(f"the file ends at byte {offset}")
            if share is not None:
                await share.take(len(block))
            try:
                async with asyncio.timeout(_STALL_S):
                    await self.write(block)
            except TimeoutError as error:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the client has stopped reading") from error
            offset += len(block)


def _windows(span: Range, window_bytes: int) -> Iterator[Range]:
    for start in range(span.start, span.end, window_bytes):
        yield Range(start, min(window_bytes, span.end - start))
