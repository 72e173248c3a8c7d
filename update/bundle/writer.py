"""Write a `.swu`: the same input gives the same bytes, and nothing appears under its name before it is complete.

A bundle is written only if it would be accepted: the description is parsed, the members are exactly those it names, and
each is hashed while it is copied. Who signed is not judged here; `update.bundle.reader` does.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from update.bundle.cpio import Form, entry_head, entry_tail, trailer
from update.bundle.description import parse
from update.bundle.reader import DESCRIPTION, SIGNATURE, locate_members, read_front
from update.digest import Digest
from update.durable import Disk, DurableFile
from update.errors import HashMismatchError, MissingMemberError, SignatureError, StoreError

_COPY_BYTES = 1 << 20

Progress = Callable[[int], None]


def _no_progress(_size: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a member's bytes come from: `size` bytes at `offset` of `file`, or all of it."""

    file: Path
    offset: int = 0
    size: int | None = None


def write_bundle(
    out: Path,
    description: bytes,
    signature: bytes,
    members: Mapping[str, Piece],
    disk: Disk,
    *,
    form: Form = Form.NEWC,
    progress: Progress = _no_progress,
) -> None:
    """Write `out` with `members` in their order; `progress` gets the sizes of the pieces written, in bytes.

    Errors: those of `description.parse`; `MissingMemberError` if members and description differ, `HashMismatchError` if a
    file does; `LimitError` for a member that the format cannot hold; `StoreError`.
    """
    listed = parse(description).members
    _check_listed(members, listed)
    staged = out.with_name(f".{out.name}.part")
    try:
        with disk.open(staged, fresh=True) as file:
            archive = _Archive(file, form, progress)
            archive.add(DESCRIPTION, description)
            archive.add(SIGNATURE, signature)
            for name, piece in members.items():
                archive.copy(name, piece, listed[name])
            archive.finish()
            file.sync()
        disk.publish(staged, out)
    except BaseException:  # also on an interrupt: half a bundle is of no use to anybody
        staged.unlink(missing_ok=True)
        raise


def replace_signature(bundle: Path, out: Path, signature: bytes, disk: Disk, *, progress: Progress = _no_progress) -> None:
    """Write `out`: `bundle` with another signature over the same description, as when one more key signs."""
    if not signature:
        raise SignatureError(f"an empty signature for {bundle}; sign its description first")
    front = read_front(bundle)
    found = locate_members(bundle)
    members = {
        name: Piece(bundle, header.offset, header.size) for name, header in found.items() if name not in {DESCRIPTION, SIGNATURE}
    }
    write_bundle(out, front.description, signature, members, disk, progress=progress)


def _check_listed(members: Mapping[str, Piece], listed: Mapping[str, Digest]) -> None:
    different = sorted(members.keys() ^ listed.keys())
    if different:
        where = "the members" if different[0] in members else "the description"
        raise MissingMemberError(f"only {where} of the bundle to be written name {different[0]!r}; both must name the same files")


class _Archive:
    """Entries one after the other into an open file; a header is written after its data, when their sum is known."""

    def __init__(self, file: DurableFile, form: Form, progress: Progress) -> None:
        self._file = file
        self._form = form
        self._progress = progress
        self._position = 0
        self._number = 0

    def add(self, name: str, data: bytes) -> None:
        head = self._head(name, len(data), sum(data))
        self._write(head + data + entry_tail(len(data)))

    def copy(self, name: str, piece: Piece, sha256: Digest) -> None:
        begin, size = self._position, _size_of(piece)
        head_bytes = len(entry_head(self._form, number=1, name=name, size=size))
        self._position += head_bytes
        state, total = hashlib.sha256(), 0
        for block in _blocks(piece, size):
            state.update(block)
            total += sum(block) if self._form is Form.CRC else 0
            self._write(block)
        _compare(name, sha256, Digest(state.hexdigest()))
        self._file.write_at(begin, self._head(name, size, total))
        self._write(entry_tail(size))

    def finish(self) -> None:
        self._write(trailer(self._form, self._position))

    def _head(self, name: str, size: int, total: int) -> bytes:
        self._number += 1
        check = total & 0xFFFFFFFF if self._form is Form.CRC else 0
        return entry_head(self._form, number=self._number, name=name, size=size, check=check)

    def _write(self, data: bytes) -> None:
        self._file.write_at(self._position, data)
        self._position += len(data)
        self._progress(len(data))


def _size_of(piece: Piece) -> int:
    if piece.size is not None:
        return piece.size
    try:
        return piece.file.stat().st_size - piece.offset
    except OSError as error:
        raise StoreError(f"cannot read {piece.file} for the bundle: {error.strerror or error}") from error


def _blocks(piece: Piece, size: int) -> Iterator[bytes]:
    try:
        with piece.file.open("rb") as source:
            source.seek(piece.offset)
            while size:
                block = source.read(min(size, _COPY_BYTES))
                if not block:
                    raise HashMismatchError(f"{piece.file} became shorter while the bundle was written; build it again")
                size -= len(block)
                yield block
    except OSError as error:
        raise StoreError(f"cannot read {piece.file} for the bundle: {error.strerror or error}") from error


def _compare(name: str, listed: Digest, found: Digest) -> None:
    if listed != found:
        raise HashMismatchError(f"member {name!r} has the SHA-256 {found}, the description says {listed}; build the bundle again")
