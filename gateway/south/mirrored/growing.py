"""Content on its way in that clients read already: the first byte does not wait for the last.

Streamed is what lasts and is announced with at least `STREAM_FROM_BYTES`. Everything else is answered when all of it is
there: smaller content takes no time (0.4 s at 20 Mbit/s), and a changing name may yet be answered from what is held.

What a client may see of content that turns out wrong depends on whether its name proves it:

| kind | proof | a client gets |
|---|---|---|
| oci, ostree, casync | the digest in the name | bytes as they come; the last of every answer only once all of it is proved |
| mender, immutable | none but the length | bytes as they come |

So an answer that is complete holds proved bytes, or a whole prefix of what upstream sent; wrong, broken or refused content
ends every answer by a cut, which no client takes for an end, since `Content-Length` is always known. It is not kept.
"""

import asyncio
import os
from collections.abc import Callable

from gateway.south.open_files import Lease, once
from update.errors import FieldrelayError

STREAM_FROM_BYTES = 1 << 20


class Growing:
    """A file of `size_bytes` that fills from its start. Used on one event loop.

    The descriptor is its own: whatever becomes of the file's name, readers read on.
    """

    def __init__(self, descriptor: int, size_bytes: int, media_type: str, *, has_proof: bool) -> None:
        self.size_bytes = size_bytes
        self.media_type = media_type
        self._descriptor = os.dup(descriptor)
        self._users = 1
        self._at_hand = 0
        self._good = not has_proof
        self._trouble: FieldrelayError | None = None
        self._changed = asyncio.Event()

    def grew(self, at_hand: int) -> None:
        """So many bytes are in the file now."""
        self._at_hand = at_hand
        self._tell()

    def proved(self) -> None:
        """All of it is what its name says."""
        self._good = True
        self._tell()

    def end(self, trouble: FieldrelayError | None) -> None:
        """Nothing more comes; `trouble` says why not, None if all has come. Once for each file."""
        self._trouble = trouble
        self._tell()
        self._release()

    async def until(self, position: int, *, last: bool) -> int:
        """How many bytes are at hand, once that is more than `position`; the `last` ones wait for the proof.

        Errors: what ended it early.
        """
        while self._at_hand <= position or (last and not self._good):
            if self._trouble is not None:
                raise self._trouble
            await self._changed.wait()
        return self._at_hand

    def lend(self) -> Lease:
        """The descriptor to read from, until it is released."""
        self._users += 1
        return Lease(self._descriptor, once(self._release))

    def _release(self) -> None:
        self._users -= 1
        if not self._users:
            os.close(self._descriptor)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


Begun = Callable[[Growing], None]
"""Told when content begins to come that may be read meanwhile."""
