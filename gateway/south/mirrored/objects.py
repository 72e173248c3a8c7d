"""What one route keeps on disk: content by name, complete and proved before it has a name, the longest unused removed first.

    <root>/staging/<name>.<n>           content on its way in; emptied at start
    <root>/objects/ab/<name>.<digest>   content; <name> is the SHA-256 of the path, <digest> that of the content
    <root>/objects/ab/<name>.json       the record: which content the path has, when that was last confirmed, and by what

A record is written after its content, and old content removed after that: whatever happens between, the path has its old
or its new content. Content without a record, and records that cannot be read, are removed at start. That a path is *not*
there upstream is a record too (no digest): clients ask for optional files and need the same answer while upstream is away.

What was written by an earlier process is hashed once before its first use; damaged content counts as missing.
Use is remembered in memory only: after a restart the order of eviction is that of the last confirmation.
"""

import asyncio
import logging
import shutil
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from update.digest import Digest, digest_file, digest_of
from update.durable import Disk, DurableFile
from update.errors import NoSpaceError

MAX_RECORDS = 500_000
MAX_ABSENT = 10_000
_MAX_RECORD_BYTES = 16 << 10

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a path. `digest` empty: upstream said that it is not there. `confirmed_s`: seconds since the epoch.

    `etag` and `modified` are what upstream is asked with next time; `media_type` is what it said.
    """

    path: str
    digest: str
    size_bytes: int
    confirmed_s: float
    media_type: str = ""
    etag: str = ""
    modified: str = ""

    @property
    def absent(self) -> bool:
        """Upstream does not have it."""
        return not self.digest


_RECORD = TypeAdapter(Held)


class Objects:
    """One route's content. `quota_bytes` bounds all of it; `reserve_bytes` of the disk stay free. Used on one event loop."""

    def __init__(self, disk: Disk, root: Path, *, quota_bytes: int, reserve_bytes: int) -> None:
        self._disk = disk
        self._staging, self._folder = root / "staging", root / "objects"
        self.quota_bytes = quota_bytes
        self._reserve_bytes = reserve_bytes
        self._held: OrderedDict[str, Held] = OrderedDict()  # from the longest unused to the last used
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._hashed: set[str] = set()
        self._expected: dict[Path, int] = {}  # announced bytes of what is on its way in
        self._numbers = count(1)
        self.used_bytes = 0

    def load(self) -> None:
        """Read all records and remove what is left over; walks the folder, so not on the event loop. Call once, first."""
        for folder in (self._staging, self._folder):
            self._disk.make_folder(folder)
        for rest in self._staging.iterdir():
            rest.unlink()
        found = [held for file in self._folder.glob("??/*.json") if (held := self._read(file)) is not None]
        for held in sorted(found, key=lambda each: each.confirmed_s):
            self._enter(held)
        kept = {self._content(held) for held in found if not held.absent}
        for file in self._folder.glob("??/*"):
            if file.suffix != ".json" and file not in kept:
                file.unlink()

    def __len__(self) -> int:
        return len(self._held) - len(self._absent)

    def find(self, path: str) -> Held | None:
        """What is known of `path`, which counts as a use."""
        held = self._held.get(path)
        if held is not None:
            self._held.move_to_end(path)
        return held

    async def open(self, held: Held) -> Path | None:
        """The file of content that is known, hashed if this process has not done so; None, and forgotten, if it is damaged."""
        file = self._content(held)
        if held.path not in self._hashed:
            if not await asyncio.to_thread(_intact, file, held):
                _LOG.warning("%s is damaged on disk: it counts as missing", held.path)
                if self._held.get(held.path) == held:
                    await self.forget(held.path)
                return None
            self._hashed.add(held.path)
        return file

    async def stage(self, path: str, announced_bytes: int) -> DurableFile:
        """An empty file for content on its way in; makes room for what is announced, `NoSpaceError` if that cannot be."""
        if announced_bytes > self.quota_bytes:
            raise _too_large_for(self.quota_bytes, path, announced_bytes)
        free = self._unspoken_bytes()
        if announced_bytes > free + self.used_bytes:
            raise NoSpaceError(
                f"{path} has {announced_bytes} bytes; {max(0, free)} are free beside store.reserve_bytes: free space"
            )
        while self._held and self._unspoken_bytes() < announced_bytes:
            await self._remove_longest_unused(path)
        staged = self._staging / f"{_name(path)}.{next(self._numbers)}"
        self._expected[staged] = announced_bytes
        return self._disk.open(staged, fresh=True)

    def discard(self, staged: Path) -> None:
        """Forget content on its way in, kept or not; after a crash `load` does it."""
        self._expected.pop(staged, None)
        with suppress(FileNotFoundError):
            staged.unlink()

    async def keep(self, held: Held, staged: Path) -> None:
        """Take over a complete, synced and checked file as the content of `held`; makes room for it first."""
        if held.size_bytes > self.quota_bytes:
            raise _too_large_for(self.quota_bytes, held.path, held.size_bytes)
        before = self._held.get(held.path)
        await self._make_room(held)
        final = self._content(held)
        await asyncio.to_thread(self._publish, staged, final)
        await self.note(held)
        self._hashed.add(held.path)
        if before is not None and not before.absent and before.digest != held.digest:
            await asyncio.to_thread(self._disk.remove, self._content(before))

    async def note(self, held: Held) -> None:
        """Write what is known of a path, e.g. that its content was confirmed or that it is not there."""
        await asyncio.to_thread(self._write, held)
        self._enter(held)
        while len(self._absent) > MAX_ABSENT:
            await self.forget(next(iter(self._absent)))

    async def forget(self, path: str) -> None:
        """Remove a path and its content; one that is not known is no error."""
        held = self._leave(path)
        self._hashed.discard(path)
        if held is not None:
            await asyncio.to_thread(self._remove, held)

    async def _make_room(self, wanted: Held) -> None:
        """Remove the longest unused until `wanted` fits into quota and count."""
        while self._held and not self._fits(wanted.size_bytes):
            await self._remove_longest_unused(wanted.path)

    async def _remove_longest_unused(self, wanted: str) -> None:
        victim = next(iter(self._held))
        _LOG.info("removing %s to make room for %s", victim, wanted)
        await self.forget(victim)

    def _fits(self, size_bytes: int) -> bool:
        room = self.used_bytes + size_bytes <= self.quota_bytes and len(self._held) < MAX_RECORDS
        return room and self._free_bytes() >= 0  # what is staged is on the disk already

    def _unspoken_bytes(self) -> int:
        """What is free and not yet announced by somebody else; too little rather than too much while that comes in."""
        return self._free_bytes() - sum(self._expected.values())

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._staging).free - self._reserve_bytes

    def _enter(self, held: Held) -> None:
        self._leave(held.path)
        self._held[held.path] = held
        self.used_bytes += held.size_bytes
        if held.absent:
            self._absent[held.path] = None

    def _leave(self, path: str) -> Held | None:
        held = self._held.pop(path, None)
        if held is not None:
            self.used_bytes -= held.size_bytes
            self._absent.pop(path, None)
        return held

    def _publish(self, staged: Path, final: Path) -> None:
        self._disk.make_folder(final.parent)
        self._disk.publish(staged, final)

    def _write(self, held: Held) -> None:
        record = self._record(held.path)
        self._disk.make_folder(record.parent)
        self._disk.write_file(record, _RECORD.dump_json(held))

    def _remove(self, held: Held) -> None:
        self._disk.remove(self._record(held.path))
        if not held.absent:
            self._disk.remove(self._content(held))

    def _read(self, file: Path) -> Held | None:
        """A record whose content is there; anything else is removed."""
        try:
            with file.open("rb") as opened:
                held = _RECORD.validate_json(opened.read(_MAX_RECORD_BYTES))
        except (OSError, ValidationError):
            held = None
        if held is None or file != self._record(held.path) or not (held.absent or self._content(held).is_file()):
            _LOG.warning("%s does not describe what is kept: removed", file)
            file.unlink(missing_ok=True)
            return None
        return held

    def _record(self, path: str) -> Path:
        name = _name(path)
        return self._folder / name[:2] / f"{name}.json"

    def _content(self, held: Held) -> Path:
        name = _name(held.path)
        return self._folder / name[:2] / f"{name}.{held.digest}"


def confirmed(held: Held, now_s: float) -> Held:
    """The same, known to be right at `now_s`."""
    return replace(held, confirmed_s=now_s)


def _too_large_for(quota_bytes: int, path: str, size_bytes: int) -> NoSpaceError:
    return NoSpaceError(f"{path} has {size_bytes} bytes, more than the route's quota_bytes {quota_bytes}: raise it")


def _name(path: str) -> Digest:
    return digest_of(path.encode())


def _intact(file: Path, held: Held) -> bool:
    try:
        return digest_file(file) == (held.digest, held.size_bytes)
    except OSError:
        return False
