"""Positioned reads of the image in a `.zck`: pair patches work between images, and what is stored are `.zck` files.

Each chunk is read, verified and unpacked when a byte of it is asked for; the ones used last are kept, as many as fit into
`KEPT_BYTES`. So memory does not grow with the image, and reading from front to back unpacks each chunk once.
"""

from collections import OrderedDict
from typing import Final

from update.chunks.chunker import Read
from update.chunks.zchunk import ChunkDecoder, HeaderIndex
from update.errors import UnsupportedError

KEPT_BYTES: Final = 16 << 20


class UnpackedImage:
    """The image of one file; `read_stored` gives bytes of the `.zck` (offset, size). Used by one thread."""

    def __init__(self, index: HeaderIndex, read_stored: Read) -> None:
        """`UnsupportedError` for a file with a dictionary."""
        if index.dictionary is not None:
            raise UnsupportedError("image with a zchunk dictionary: build it without one, as deltas need it")
        self.index = index
        self._read_stored = read_stored
        self._decoder = ChunkDecoder()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the image from `offset`, fewer only at its end; `ChunkError` for a damaged chunk."""
        end = min(offset + size, self.index.image_size)
        parts = []
        while offset < end:
            number = self.index.holding(offset)
            start = self.index[number].offset
            parts.append(self._chunk(number)[offset - start : end - start])
            offset += len(parts[-1])
        return b"".join(parts)

    def _chunk(self, number: int) -> bytes:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        chunk = self.index[number]
        data = self._kept[number] = self._decoder.decode(self._read_stored(chunk.start, chunk.length), chunk)
        self._kept_bytes += len(data)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return data
