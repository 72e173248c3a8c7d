"""Cuts what arrives from a `.zck` into the stored chunks that were asked for. Pure: no I/O.

Pieces arrive ascending, of any size, and may hold more than was asked (a server may answer ranges with one covering
range): the rest is dropped. A gap in a chunk that was asked for, or an end before the last one, is the peer's fault.
"""

from collections.abc import Iterator, Sequence

from update.chunks.zchunk import Chunk
from update.errors import ProtocolError


class Assembler:
    """One download of `wanted`: chunks with at least one stored byte, ascending by `start`."""

    def __init__(self, wanted: Sequence[Chunk]) -> None:
        self._wanted = wanted
        self._next = 0
        self._held = bytearray()

    def feed(self, offset: int, data: bytes) -> Iterator[tuple[Chunk, bytes]]:
        """The chunks that are complete with `data`, which begins at byte `offset` of the file. Errors: `ProtocolError`."""
        view = memoryview(data)
        while view and self._next < len(self._wanted):
            chunk = self._wanted[self._next]
            at = chunk.start + len(self._held)
            if offset > at:
                raise ProtocolError(f"bytes {at} to {offset - 1} of the chunks were skipped by the server; ask again")
            skipped = min(at - offset, len(view))
            taken = view[skipped : skipped + chunk.length - len(self._held)]
            self._held += taken
            offset, view = offset + skipped + len(taken), view[skipped + len(taken) :]
            if len(self._held) == chunk.length:
                yield chunk, bytes(self._held)
                self._next += 1
                self._held.clear()

    def finish(self) -> None:
        """Called at the end of the download: everything must have arrived. Errors: `ProtocolError`."""
        if self._next < len(self._wanted):
            missing = len(self._wanted) - self._next
            raise ProtocolError(f"the server ended with {missing} of {len(self._wanted)} chunks missing; ask again")
