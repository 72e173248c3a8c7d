"""What an upstream sends besides what it was asked for is kept, if there is room for it that nothing has to leave for.

An upstream that answers every request with the whole file, or several ranges with one around them, is paid for all of it:
who asks for the rest later finds it here. It is as little trusted as the rest, compared chunk by chunk, and the memory it
takes is one chunk for each connection and what is written at a time. Without room it is thrown away, and no more of it is
read than was asked for.
"""

import logging
from collections.abc import Awaitable, Callable, Container

from gateway.south.assembly import Windfall
from gateway.south.sparse import SparseFile
from update.errors import NoSpaceError

_log = logging.getLogger(__name__)

SpareRoom = Callable[[int], Awaitable[bool]]
"""Whether so many more bytes may be stored that nobody has asked for; they count as used then."""
Keep = Callable[[list[tuple[int, bytes]]], Awaitable[None]]
"""Writes those of the chunks that are right. Errors: `StoreError`."""


class Besides:
    """The `Spare` of one request for the chunks `asked`; `flush` it at the end. `write_bytes` are kept at a time."""

    def __init__(self, sparse: SparseFile, asked: Container[int], *, room: SpareRoom, keep: Keep, write_bytes: int) -> None:
        self._sparse = sparse
        self._asked = asked
        self._room = room
        self._keep = keep
        self._write_bytes = write_bytes
        self._windfall = Windfall(sparse.index, self._is_of_use)
        self._next = 0
        self._has_room = True

    def reaches(self, position: int) -> bool:
        """Whether anything behind byte `position` is missing and can be kept; asked with rising positions."""
        index = self._sparse.index
        while self._next < len(index) and self._is_behind(position):
            self._next += 1
        return self._has_room and self._next < len(index)

    async def take(self, offset: int, piece: bytes) -> None:
        """Bytes from `offset` on."""
        if self._has_room:
            self._windfall.feed(offset, piece)
        if self._windfall.ready_bytes >= self._write_bytes:
            await self.flush()

    async def flush(self) -> None:
        """Keep the chunks that are whole."""
        if not (chunks := self._windfall.take()):
            return
        try:
            self._has_room = self._has_room and await self._room(sum(len(stored) for _, stored in chunks))
            if self._has_room:
                await self._keep(chunks)
        except NoSpaceError as error:
            _log.info("relay: what upstream sends unasked of %s is not kept: %s", self._sparse.path.name, error)
            self._has_room = False

    def _is_behind(self, position: int) -> bool:
        chunk = self._sparse.index[self._next]
        return chunk.start + chunk.length <= position or self._sparse.claims(self._next)

    def _is_of_use(self, number: int) -> bool:
        return number not in self._asked and not self._sparse.claims(number)
