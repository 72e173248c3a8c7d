"""Chunks out of a pair patch: the whole new image passes by, and what is missing of it is verified and kept.

Nobody is trusted for it: a chunk is written only after its bytes had the digest that the signed index names. The first one
that does not ends the patch; what was written before stays, and the rest comes as chunks. Memory: what the patch may take
(`update.chunks.pair`), one chunk, and one piece off the wire.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass

from node_agent.handlers.part import Part
from update.chunks.chunker import Read
from update.chunks.pair import PatchOffer, apply_pair
from update.chunks.zchunk import HeaderIndex
from update.errors import ChunkError, EndlessDataError, LimitError, UnreachableError


@dataclass(frozen=True, slots=True)
class Base:
    """The image that a patch leads from: positioned reads (offset, size), and its size in bytes."""

    read: Read
    size: int


class Missing:
    """Takes the new image from its first byte on, and puts what `done` does not know into `part`. Used by one thread."""

    def __init__(self, index: HeaderIndex, done: bytearray, part: Part, put: Callable[[int], object]) -> None:
        """`put` hears the size in bytes of each chunk that is in place now."""
        self._index = index
        self._done = done
        self._part = part
        self._put = put
        self._number, self._at = 0, 0
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        """The next bytes. Errors: `ChunkError` for a chunk that is another one, `LimitError`, `StoreError`, `SlotError`."""
        view = memoryview(data)
        while view:
            if self._number == len(self._index):
                raise LimitError(f"patch: it goes on behind the {self._index.image_size} bytes of the image")
            left = self._index.size_of(self._number) - self._at
            if not self._done[self._number]:
                self._held += view[:left]
            self._at += min(left, len(view))
            if left <= len(view):
                self._end_chunk()
            view = view[left:]

    def _end_chunk(self) -> None:
        number, data = self._number, bytes(self._held)
        self._number, self._at = number + 1, 0
        self._held.clear()
        if self._done[number]:
            return
        chunk = self._index[number]
        if hashlib.sha256(data).digest() != chunk.digest:
            raise ChunkError(
                f"patch: chunk {number} became another one than the signed index names; the chunks are taken instead"
            )
        self._part.write(chunk.offset, data)
        self._done[number] = 1
        self._put(len(data))


class Pulled:
    """A stream for a thread, out of pieces that come on the event loop; each is asked for when it is needed."""

    def __init__(self, pieces: AsyncIterator[bytes], limit: int) -> None:
        """More than `limit` bytes are refused: that many were announced."""
        self._pieces = pieces
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waited_for: Future[bytes] | None = None
        self._stopped = False
        self._held = memoryview(b"")
        self.received = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. Errors: those of the source, `UnreachableError` once stopped."""
        if not self._held:
            self._held = memoryview(self._next())
        taken, self._held = self._held[:size], self._held[size:]
        return bytes(taken)

    def stop(self) -> None:
        """Let the thread go: nothing comes any more."""
        with self._lock:
            self._stopped = True
            if self._waited_for is not None:
                self._waited_for.cancel()

    def _next(self) -> bytes:
        with self._lock:
            if self._stopped:
                raise UnreachableError("the update was stopped")
            self._waited_for = waited_for = asyncio.run_coroutine_threadsafe(self._piece(), self._loop)
        try:
            piece = waited_for.result()
        except CancelledError as error:
            raise UnreachableError("the update was stopped") from error
        self.received += len(piece)
        if self.received > self._limit:
            raise EndlessDataError(f"patch: more than the {self._limit} bytes that were announced")
        return piece

    async def _piece(self) -> bytes:
        return await anext(self._pieces, b"")


async def apply(offer: PatchOffer, stream: Pulled, base: Base, missing: Missing, *, size: int, memory_bytes: int) -> None:
    """Make the new image of `size` bytes in a thread. Errors: `WireError` of the source, and those of `apply_pair`.

    When cancelled, the thread ends first: nothing goes on writing behind the back of whoever cleans up.
    """
    work = asyncio.ensure_future(
        asyncio.to_thread(
            apply_pair, offer.form, stream, base.read, base.size, missing.write, size=size, memory_bytes=memory_bytes
        )
    )
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stream.stop()
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        work.exception()
        raise
