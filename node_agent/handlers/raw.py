"""An image that travels whole: stored plain, as gzip (SWUpdate's `zlib`) or as zstd.

`update.bundle.reader` unpacks it with bounded memory and hashes the stored bytes once more. Here the SHA-256 of the plain
content is computed while it is written, and compared with what is read back.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

import zstandard

from node_agent.handlers.part import BLOCK_BYTES, Part
from update.bundle.entries import Compression, Entry
from update.bundle.reader import announced_bytes, open_payload
from update.bundle.verified import VerifiedBundle
from update.digest import Digest
from update.errors import ReadBackError, StoreError

_GZIP_SIZE_BYTES: Final = 4
_ZSTD_HEADER_BYTES: Final = 18


class RawWriter:
    """Writes one image; `size` (bytes) and `sha256` are those of the plain content once `write` is exhausted."""

    def __init__(self, bundle: VerifiedBundle, entry: Entry, part: Part, *, resume: bool) -> None:
        """`resume`: compare with what is in place first, and write only what differs."""
        self.size = 0
        self.kept_bytes = 0
        self.sha256 = Digest("")
        self._bundle = bundle
        self._entry = entry
        self._part = part
        self._resume = resume

    def write(self) -> Iterator[int]:
        """Write everything and make it durable; yields bytes done.

        Errors: `HashMismatchError`, `CompressionError` (also for more than the part holds), `StoreError`.
        """
        state = hashlib.sha256()
        room = self._part.capacity - self._entry.offset
        with open_payload(self._bundle, self._entry, max_bytes=room) as payload:
            while block := payload.read(BLOCK_BYTES):
                state.update(block)
                self._put(block)
                yield len(block)
        self.sha256 = Digest(state.hexdigest())
        self._part.settle()

    def read_back(self) -> Iterator[int]:
        """Compare the part with what was written; yields bytes compared. Errors: `ReadBackError`."""
        state, position, end = hashlib.sha256(), self._entry.offset, self._entry.offset + self.size
        while position < end and (block := self._part.read(position, min(BLOCK_BYTES, end - position))):
            state.update(block)
            position += len(block)
            yield len(block)
        if (found := state.hexdigest()) != self.sha256:
            raise ReadBackError(
                f"part {self._part.name}: wrote sha256 {self.sha256}, read back {found}; "
                "the medium is failing, or a program wrote to the slot"
            )

    def _put(self, block: bytes) -> None:
        offset = self._entry.offset + self.size
        if self._resume and self._part.read(offset, len(block)) == block:
            self.kept_bytes += len(block)
        else:
            self._part.write(offset, block)
        self.size += len(block)


def plain_size(bundle: VerifiedBundle, entry: Entry) -> int:
    """The bytes that the image claims to unpack to: what must fit before the first byte is written.

    The signed description may say it; else a gzip trailer (modulo 2**32) or a zstd frame does, or not (0): while writing,
    the bound is kept again.
    """
    member = bundle.members[entry.filename]
    announced = announced_bytes(entry)
    if announced is not None:
        return announced
    match entry.compressed:
        case Compression.NONE:
            return member.size
        case Compression.ZLIB:
            last = min(_GZIP_SIZE_BYTES, member.size)
            return int.from_bytes(_peek(bundle, member.offset + member.size - last, last), "little")
        case Compression.ZSTD:
            return _frame_size(_peek(bundle, member.offset, min(_ZSTD_HEADER_BYTES, member.size)))


def _peek(bundle: VerifiedBundle, offset: int, size: int) -> bytes:
    try:
        with bundle.file.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise StoreError(f"cannot read the bundle {bundle.file}: {error.strerror or error}") from error


def _frame_size(header: bytes) -> int:
    try:
        return max(zstandard.frame_content_size(header), 0)
    except zstandard.ZstdError:
        return 0
