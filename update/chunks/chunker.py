"""Cuts an image into chunks exactly as zchunk's automatic chunker does (1.2.3 and later, `zck -u`).

Rules:

1. A chunk ends before the first byte whose window (the 48 bytes that end there, all within the chunk) matches, at
   `MIN_BYTES` to `MAX_BYTES`; without a match at `MAX_BYTES`.
2. A match below `MIN_BYTES` is refused, but libzck then feeds *the same byte again*: until 47 more bytes have passed,
   the window holds it twice and the hashes differ from those of the data. They can match, and be refused, again.

So candidates over the plain data are found first, for whole segments at once (`rolling`), and the few steps after each
refused match are simulated byte by byte. Memory is bounded by the segments in flight, whatever the size of the image.
"""

import hashlib
import os
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final

from update.chunks.rolling import MASK, WINDOW_BYTES, Search, best_search, hash_window, roll
from update.errors import CorruptError, StoreError

MIN_BYTES: Final = 8192
MAX_BYTES: Final = 131072
SEGMENT_BYTES: Final = 1 << 20
_MAX_WORKERS: Final = 4

Read = Callable[[int, int], bytes]
"""Positioned read: (offset, size) -> that many bytes, fewer only at the end. `DurableFile.read_at` is one."""


def file_reader(descriptor: int) -> Read:
    """Positioned reads from an open file or block device; a failing disk is a `StoreError`."""

    def read(offset: int, size: int) -> bytes:
        data = b""
        try:
            while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
                data = data + more if data else more
        except OSError as error:
            raise StoreError(f"cannot read {size} bytes at {offset} of the image: {error.strerror}") from error
        return data

    return read


def index_image(
    read: Read, size: int, *, make_search: Callable[[], Search] | None = None, workers: int | None = None
) -> Iterator[tuple[int, int, bytes]]:
    """Offset, size and SHA-256 of every chunk of an image of `size` bytes: what `plan.Source` takes."""
    for offset, data in cut_image(read, size, make_search=make_search, workers=workers):
        yield offset, len(data), hashlib.sha256(data).digest()


def cut_image(
    read: Read, size: int, *, make_search: Callable[[], Search] | None = None, workers: int | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Offset and data of every chunk, in order. Errors: `CorruptError` if the image ends before `size` bytes."""
    window, base, hits = b"", 0, array("I")
    for segment, found in _searched(read, size, make_search or best_search(), workers):
        hits.extend(at + len(window) for at in found)
        window += segment
        final = base + len(window) == size
        start, view = 0, memoryview(window)
        while len(window) - start > (0 if final else MAX_BYTES):
            cut = next_cut(window, start, hits)
            yield base + start, view[start:cut]
            start = cut
        window, base = window[start:], base + start
        hits = array("I", [at - start for at in hits[bisect_left(hits, start) :]])


def next_cut(data: bytes, start: int, hits: "array[int]") -> int:
    """End of the chunk that begins at `start`; `data` holds more than `MAX_BYTES` from there, or ends with the image."""
    limit, after = start + MAX_BYTES, start + WINDOW_BYTES - 1
    while True:
        number = bisect_left(hits, after)
        position = hits[number] if number < len(hits) else limit
        if position >= limit:
            return min(limit, len(data))
        if position - start >= MIN_BYTES:
            return position
        position, is_cut = _feed_twice(data, start, position)
        if is_cut:
            return position
        after = position + 1


def _feed_twice(data: bytes, start: int, position: int) -> tuple[int, bool]:
    """Rule 2, from the refused match at `position`: the cut, or where the window is pure again without one."""
    window = deque(data[position - WINDOW_BYTES + 1 : position + 1], WINDOW_BYTES)
    value = hash_window(bytes(window))
    while True:
        fed = 0
        while True:
            value = roll(value, window[0], data[position])
            window.append(data[position])
            fed += 1
            if not value & MASK or position - start >= MAX_BYTES:
                break
            if fed == WINDOW_BYTES:
                return position, False
            position += 1
            if position == len(data):
                return position, True
        if position - start >= MIN_BYTES:
            return position, True


def _searched(
    read: Read, size: int, make_search: Callable[[], Search], workers: int | None
) -> Iterator[tuple[bytes, "array[int]"]]:
    """Every segment with its candidates (positions in the segment), read and searched ahead by threads where it helps."""
    search = make_search()
    threads = min(workers if workers is not None else os.cpu_count() or 1, _MAX_WORKERS, -(-size // SEGMENT_BYTES))
    if not search.parallel or threads <= 1:
        yield from (_search_segment(read, offset, size, search) for offset in range(0, size, SEGMENT_BYTES))
        return
    searches: SimpleQueue[Search] = SimpleQueue()
    for other in (search, *(make_search() for _ in range(threads - 1))):
        searches.put(other)

    def work(offset: int) -> tuple[bytes, "array[int]"]:
        own = searches.get()
        try:
            return _search_segment(read, offset, size, own)
        finally:
            searches.put(own)

    ahead: deque[Future[tuple[bytes, array[int]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="chunker") as pool:
        for offset in range(0, size, SEGMENT_BYTES):
            ahead.append(pool.submit(work, offset))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _search_segment(read: Read, offset: int, size: int, search: Search) -> tuple[bytes, "array[int]"]:
    """One segment; its search begins early enough for the windows that end in its first bytes."""
    before = min(offset, WINDOW_BYTES - 1)
    wanted = min(SEGMENT_BYTES, size - offset) + before
    data = read(offset - before, wanted)
    if len(data) != wanted:
        raise CorruptError(f"the image ended at byte {offset - before + len(data)} of {size}: it was changed while being read")
    return data[before:], array("I", [at - before for at in search.find(data)])
