"""The store: verified content and byte-for-byte metadata, kept so that a power cut at any moment loses nothing promised.

Rules:

1. Content enters by staging -> `verify_target` -> `publish`; the store takes nothing but a `VerifiedTarget`. Its file is
   synced, then named by its digest, then the folder is synced.
2. Metadata is mirrored as bytes, never serialised again; `timestamp.json` is replaced last, so that a reader, or a crash,
   finds the old or the new repository (versioned names never change their content; TUF 1.0, section 6.2).
3. Content is hashed again before its first use by each process. What no longer matches goes to quarantine and counts as
   missing: the next mirror run fetches it again.
4. A process that was killed may have left names in memory that are not on disk: opening the store syncs the folders of
   what it is going to rely on.

A repository folder here is a TUF repository for any client that reads a directory.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from update.digest import Digest
from update.durable import Disk
from update.errors import CorruptError, LengthOrHashError, MetadataError, NoSpaceError, NotStoredError, StateError
from update.store.journal import Journal
from update.store.layout import Layout, open_layout
from update.store.quota import Held
from update.store.staging import Staged
from update.trust.verified import TargetInfo, VerifiedTarget, verify_target

UNREADABLE = "unreadable pin"
"""The reason that stands for a damaged pin file: it keeps its content until an operator unpins exactly this reason."""

_MAX_REASON_CHARACTERS = 200
_TIMESTAMP = "timestamp.json"
_MAX_NAME_BYTES = 240  # and room for what `write_file` adds
_METADATA_NAME = re.compile(r"[^./\x00-\x1f\x7f\ud800-\udfff][^/\x00-\x1f\x7f\ud800-\udfff]*\.json")
_CONTENT_NAME = re.compile(r"([0-9a-f]{64})\..+", re.ASCII)
_STAGED_NAME = re.compile(r"([0-9a-f]{64})\.part", re.ASCII)


class Store:
    """Everything below one root folder; one process writes to it. `now` gives seconds since the epoch, for last use.

    Errors of every method: `StoreError` and its leaves from the disk, `ConfigurationError` for a bad repository name.
    """

    def __init__(self, disk: Disk, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self.layout: Layout = open_layout(disk, root)
        self._disk = disk
        self._now = now
        self._verified: dict[Path, VerifiedTarget] = {}
        self._settle()

    def stage(self, info: TargetInfo) -> Staged:
        """Open the partial file of a content, or begin one; `NoSpaceError` if the rest does not fit the disk."""
        staged = self._open_staged(info.sha256, info.length)
        missing, free = info.length - staged.size(), self.free_bytes()
        if missing > free:
            staged.close()
            raise NoSpaceError(f"{info.path} needs {missing} more bytes, {free} are free on the disk of {self.layout.root}")
        return staged

    def publish(self, verified: VerifiedTarget) -> Path:
        """Give verified content its final name, durably; the file must lie in `staging/` or `sparse/`."""
        if verified.file.parent not in {self.layout.staging, self.layout.sparse}:
            raise StateError(f"{verified.file} is not in the store's staging; copy it there and verify the copy")
        final = self.layout.target(verified.info)
        self._disk.make_folder(final.parent)
        with self._disk.open(verified.file) as file:
            file.sync()
        self._disk.publish(verified.file, final, along=[self.layout.staged_record(verified.info.sha256)])
        self._verified[final] = replace(verified, file=final)
        self._touch(final)
        return final

    def find(self, info: TargetInfo) -> Path | None:
        """Where the content lies, not hashed; None if it is missing or of another size (which is quarantined)."""
        path = self.layout.target(info)
        try:
            status = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size != info.length:
            self._quarantine(path)
            return None
        self._touch(path)
        return path

    def open_verified(self, info: TargetInfo) -> VerifiedTarget:
        """The content with its proof; hashed once by each process (1 GiB takes seconds: not on an event loop).

        Errors: `NotStoredError`; `CorruptError` for content that no longer matches, which is then in quarantine.
        """
        path = self.find(info)
        if path is None:
            raise NotStoredError(f"{info.path} of repository {info.repository} is not stored; mirror the repository again")
        known = self._verified.get(path)
        if known is None:
            try:
                known = verify_target(info, path)
            except LengthOrHashError as error:
                self._quarantine(path)
                raise CorruptError(f"{path} changed on disk; it was moved to quarantine, mirror the repository again") from error
            self._verified[path] = known
        return replace(known, info=info)

    def publish_metadata(self, repository: str, files: Sequence[tuple[str, bytes]]) -> None:
        """Mirror metadata files (file name, bytes) in the order given, the timestamp last whatever its place.

        `MetadataError` for a name that is no plain file name; nothing is written then.
        """
        for name, _ in files:
            if not _METADATA_NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES:
                raise MetadataError(f"metadata file name {name[:120]!r} is refused: it is no plain file name that ends in .json")
        folder = self.layout.metadata(repository)
        self._disk.make_folder(folder)
        changed = [(name, data) for name, data in files if not _holds(folder / name, data)]
        if first := [(name, data) for name, data in changed if name != _TIMESTAMP]:
            self._disk.write_files(folder, first)
        if last := [(name, data) for name, data in changed if name == _TIMESTAMP]:
            self._disk.write_files(folder, last)

    def pin(self, sha256: Digest, reason: str) -> None:
        """Keep a content, durably, until the same reason is unpinned; reasons add up."""
        if not 0 < len(reason) <= _MAX_REASON_CHARACTERS:
            raise StateError(f"the reason of a pin has 1 to {_MAX_REASON_CHARACTERS} characters, got {len(reason)}")
        reasons = self._reasons(self.layout.pin(sha256))
        if reason not in reasons:
            Journal(self._disk, self.layout.pin(sha256)).write({"reasons": sorted(reasons | {reason})})

    def unpin(self, sha256: Digest, reason: str) -> None:
        """Take one reason away; with the last one the content may be evicted. An unknown reason is no error."""
        journal, before = Journal(self._disk, self.layout.pin(sha256)), self._reasons(self.layout.pin(sha256))
        if before == {reason}:
            journal.clear()
        elif reason in before:
            journal.write({"reasons": sorted(before - {reason})})

    def pins(self) -> Mapping[Digest, frozenset[str]]:
        """Every pinned content with its reasons."""
        return {Digest(path.stem): self._reasons(path) for path in sorted(self.layout.pins.glob("*.json"))}

    def held(self) -> tuple[Held, ...]:
        """Every stored content with size and last use."""
        pinned = self.pins().keys()
        return tuple(
            Held(repository, file, sha256, status.st_size, status.st_mtime, sha256 in pinned)
            for repository, file, sha256, status in self._contents()
        )

    def remove(self, held: Held) -> None:
        """Remove one stored content, durably; who reads it reads on. Whether it may go is the caller's to know."""
        self._verified.pop(held.file, None)
        self._disk.remove(held.file)

    def set_aside(self, held: Held) -> None:
        """Move one content that no longer matches its digest to quarantine: it counts as missing."""
        if _status(held.file) is not None:
            self._quarantine(held.file)

    def empty_quarantine(self) -> None:
        """Remove what was damaged: it is kept for inspection only as long as there is room."""
        for path in tuple(self.layout.quarantine.iterdir()):
            self._disk.remove(path)

    def sweep_staging(self, wanted: Collection[Digest]) -> None:
        """Remove the partial files of content that no repository lists any more."""
        for sha256, path in self._partial_files():
            if sha256 not in wanted:
                self._drop_staged(sha256, path)

    def free_bytes(self) -> int:
        """Bytes that an unprivileged writer may still use on the disk."""
        status = os.statvfs(self.layout.root)
        return status.f_bavail * status.f_frsize

    def _open_staged(self, sha256: Digest, length: int) -> Staged:
        return Staged(self._disk, self.layout.staged(sha256), self.layout.staged_record(sha256), length=length)

    def _settle(self) -> None:
        """Rule 4, and the end of a publish that a crash interrupted between its two folders."""
        for folder, _, _ in [*os.walk(self.layout.repositories), *os.walk(self.layout.staging), *os.walk(self.layout.pins)]:
            self._disk.sync_folder(Path(folder))
        published = {sha256 for _, _, sha256, _ in self._contents()}
        for sha256, path in self._partial_files():
            if sha256 in published:
                self._drop_staged(sha256, path)

    def _drop_staged(self, sha256: Digest, path: Path) -> None:
        self._disk.remove(self.layout.staged_record(sha256))
        self._disk.remove(path)

    def _partial_files(self) -> Iterator[tuple[Digest, Path]]:
        for path in sorted(self.layout.staging.iterdir()):
            if match := _STAGED_NAME.fullmatch(path.name):
                yield Digest(match[1]), path

    def _contents(self) -> Iterator[tuple[str, Path, Digest, os.stat_result]]:
        for repository in sorted(self.layout.repositories.iterdir()):
            for file in sorted((repository / "targets").rglob("*")):
                match, status = _CONTENT_NAME.fullmatch(file.name), _status(file)
                if match and status is not None and stat.S_ISREG(status.st_mode):
                    yield repository.name, file, Digest(match[1]), status

    def _quarantine(self, path: Path) -> None:
        self._verified.pop(path, None)
        self._disk.publish(path, self.layout.quarantine / path.name)

    def _touch(self, path: Path) -> None:
        with suppress(OSError):  # only the order of eviction hangs on it
            os.utime(path, (self._now(), self._now()))

    def _reasons(self, path: Path) -> frozenset[str]:
        try:
            body = Journal(self._disk, path).read()
        except CorruptError:
            return frozenset({UNREADABLE})
        reasons = body.get("reasons") if body is not None else []
        if not isinstance(reasons, list) or not all(isinstance(each, str) for each in reasons):
            return frozenset({UNREADABLE})
        return frozenset(str(each) for each in reasons)


def _status(path: Path) -> os.stat_result | None:
    """None for what was moved away meanwhile: other threads quarantine and evict."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
