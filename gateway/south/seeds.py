"""What a new `.zck` takes from older ones on this disk instead of from upstream: chunks that are stored the same way.

Rules:

1. Chunks are the same if digest and length of their *compressed* bytes are: clients get exactly the bytes that the signed
   header of the new file promises, and compression differs between versions of libzstd.
2. An older file and its header are only hints, be the file complete, partly filled, or listed by nobody any more: every
   chunk is compared with the new file's own header on its way in (`SparseFile.write`). One that was never there, has rotted
   or was removed meanwhile is fetched. So nothing of an older file has to be proved or kept for it.
3. Copied is what is asked for, and nothing else. So a request waits for no more than it wants, the same room is asked for
   as for fetching, and a flash disk is not worn by chunks that no node needs.
4. Where to look is found out by reading the headers of at most `MAX_FILES` files, those used last first, of at most
   `MAX_HEADERS_BYTES` in all and one at a time, and for the first `MAX_CHUNKS` chunks of the new file (8 GiB of image at
   the usual 32 KiB). The result takes 10 bytes for each chunk. It is found out again, at most every `LOOK_S`, when files
   came, went or grew.
"""

import logging
import os
import re
import stat
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from update.chunks.zchunk import LEAD_BYTES, Chunk, HeaderIndex, header_length, parse_header
from update.digest import Digest
from update.errors import BundleError
from update.store.layout import Layout

_log = logging.getLogger(__name__)

MAX_FILES: Final = 32
MAX_HEADERS_BYTES: Final = 64 << 20
MAX_CHUNKS: Final = 1 << 18
LOOK_S: Final = 60.0
_NOWHERE: Final = -1
_NAME = re.compile(r"([0-9a-f]{64})(?:\..+)?\.zck", re.ASCII)


@dataclass(frozen=True, slots=True)
class OldFile:
    """A `.zck` on disk, complete or not; `blocks` tells when it has grown."""

    path: Path
    digest: Digest
    blocks: int
    used_s: float


Look = Callable[[], Sequence[OldFile]]
"""Lists what is on disk now."""


def old_files(layout: Layout) -> tuple[OldFile, ...]:
    """Every `.zck` of a store, those used last first."""
    found = [*layout.sparse.iterdir(), *layout.repositories.glob("*/targets/**/*.zck")]
    return tuple(sorted(filter(None, map(_old_file, found)), key=lambda file: (-file.used_s, file.digest)))


def _old_file(path: Path) -> OldFile | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:  # published or removed a moment ago
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return OldFile(path, Digest(match[1]), status.st_blocks, status.st_mtime)


class Seeds:
    """The chunks of one file, of content `digest`, that older files may have. Its methods may run in threads.

    `look` lists the files; `clock` gives seconds that never go back.
    """

    def __init__(self, index: HeaderIndex, digest: Digest, look: Look, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._digest = digest
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._known: tuple[tuple[Path, int], ...] = ()
        self._places = _Places.nowhere()

    def find(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that may be at hand. May read headers."""
        places = self._look_around()
        return [number for number in numbers if places.file_of(number) is not None]

    def read(self, numbers: Iterable[int]) -> list[tuple[int, bytes]]:
        """(number, stored bytes) of what could be read; not compared with anything yet."""
        places, found = self._places, list[tuple[int, bytes]]()
        by_file: dict[Path, list[int]] = {}
        for number in numbers:
            if path := places.file_of(number):
                by_file.setdefault(path, []).append(number)
        for path, some in by_file.items():
            with suppress(OSError), _opened(path) as descriptor:  # removed meanwhile, or a bad sector: the rest is fetched
                for number in some:
                    found.append((number, os.pread(descriptor, self._index[number].length, places.starts[number])))
        return found

    def _look_around(self) -> "_Places":
        with self._lock:
            now = self._clock()
            if now - self._looked_s >= LOOK_S:
                self._looked_s = now
                files = [file for file in self._look() if file.digest != self._digest][:MAX_FILES]
                known = tuple(sorted((file.path, file.blocks) for file in files))
                if known != self._known:
                    self._known, self._places = known, _search(self._index, files)
            return self._places


@dataclass(frozen=True, slots=True)
class _Places:
    """Per chunk of the new file: which of `files` has it (or `_NOWHERE`), and from which byte on."""

    files: tuple[Path, ...]
    holders: "array[int]"
    starts: "array[int]"

    @classmethod
    def nowhere(cls, count: int = 0) -> "_Places":
        return cls((), array("h", [_NOWHERE]) * count, array("Q", [0]) * count)

    def file_of(self, number: int) -> Path | None:
        holder = self.holders[number] if number < len(self.holders) else _NOWHERE
        return None if holder == _NOWHERE else self.files[holder]


def _search(index: HeaderIndex, files: Sequence[OldFile]) -> _Places:
    """Where the chunks of `index` are, the first file that has one being taken."""
    count = min(len(index), MAX_CHUNKS)
    wanted = {index.stored_digest_of(number): number for number in range(count)}
    empty = _Places.nowhere(count)
    places = _Places(tuple(file.path for file in files), empty.holders, empty.starts)
    left_bytes = MAX_HEADERS_BYTES
    for holder, file in enumerate(files):
        try:
            with _opened(file.path) as descriptor:
                old = _header(descriptor, left_bytes)
                for number, start in _common(index, wanted, old, descriptor) if old else ():
                    if places.holders[number] == _NOWHERE:
                        places.holders[number], places.starts[number] = holder, start
        except (OSError, BundleError) as error:
            _log.debug("seeds: %s is of no use: %s", file.path, error)
            continue
        left_bytes -= old.header_size if old else 0
    for number in range(count):  # chunks that occur several times in the new file
        same = wanted[index.stored_digest_of(number)]
        places.holders[number], places.starts[number] = places.holders[same], places.starts[same]
    return places


def _header(descriptor: int, max_bytes: int) -> HeaderIndex | None:
    """The header of an older file; None for one that is larger than is read."""
    size = header_length(os.pread(descriptor, LEAD_BYTES, 0))
    return parse_header(os.pread(descriptor, size, 0)) if size <= max_bytes else None


def _common(index: HeaderIndex, wanted: dict[bytes, int], old: HeaderIndex, descriptor: int) -> Iterator[tuple[int, int]]:
    """(number in the new file, first byte in the old one) of what both have and the old file does not lack."""
    for number in range(len(old)):
        same = wanted.get(old.stored_digest_of(number))
        if same is None:
            continue
        chunk = old[number]
        if chunk.length == index[same].length and _is_written(descriptor, chunk):
            yield same, chunk.start


def _is_written(descriptor: int, chunk: Chunk) -> bool:
    """Whether a file has data where the chunk belongs; a file system that cannot tell calls all of it data (lseek(2))."""
    try:
        return os.lseek(descriptor, chunk.start, os.SEEK_HOLE) >= chunk.start + chunk.length
    except OSError:  # behind its end
        return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
