"""Writing a judged bundle into the inactive slot.

1. All parts are opened and everything is seen to fit. Then the record says EMPTY and names the bundle, so that an
   interrupted write is recognised: the next write of that bundle verifies in place what is already there.
2. Scripts run with `preinst`, images are written and read back one after another, scripts run with `postinst`.
3. The headers are kept, and the record says PENDING.

A delta takes the index of the running slot from the header that was kept when that slot was written. Without one the old
image is cut into chunks again, which is slower and otherwise the same.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from node_agent.drivers.driver import ChunkSource, Progress, SlotState, Written
from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from node_agent.drivers.slots.plan import PlannedImage, RemoteChunks, SlotPlan
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from node_agent.handlers.delta import DeltaWriter, OldImage
from node_agent.handlers.part import Part, in_batches
from node_agent.handlers.raw import RawWriter
from node_agent.handlers.script import Phase, forget_scripts, run_scripts
from node_agent.handlers.verity import verify_tree
from update.bundle.verified import VerifiedBundle
from update.chunks.chunker import Read, index_image
from update.chunks.plan import Source
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import CorruptError, SlotError, UnsupportedError

_Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that a write may need, and how long they may take. `scripts` holds the private folders of scripts."""

    scripts: Path
    verity: str = "veritysetup"
    script_timeout_s: float = 600.0
    verity_timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Done:
    """One image in place; `header` where it came as a delta."""

    record: PartRecord
    downloaded: int = 0
    reused: int = 0
    zero: int = 0
    header: HeaderIndex | None = None


class SlotWriter:
    """Writes `slot` while `active` runs."""

    def __init__(self, slot: SlotConfig, active: SlotConfig, records: SlotRecords, disk: Disk, tools: Tools) -> None:
        self._slot = slot
        self._active = active
        self._records = records
        self._disk = disk
        self._tools = tools

    async def write(
        self, bundle: VerifiedBundle, plan: SlotPlan, identity: Digest, chunks: ChunkSource, progress: Progress
    ) -> Written:
        """Bring the slot to `plan`; `identity` is what its record will name."""
        before = await asyncio.to_thread(self._records.read, self._slot.name)
        resume = identity in {before.writing, before.bundle}
        advance = _meter(progress, sum(image.size for image in plan.images))
        with ExitStack() as opened:
            parts = [self._open(image, opened) for image in plan.images]
            untouched = await asyncio.to_thread(self._begin, plan, identity, before)
            await self._run_scripts(plan, Phase.BEFORE)
            done: dict[str, _Done] = {}
            for image, part in zip(plan.images, parts, strict=True):
                done[image.part.name] = await self._write_image(bundle, image, part, chunks, advance, resume=resume)
            await self._run_scripts(plan, Phase.AFTER)
        records = {**untouched, **{name: each.record for name, each in done.items()}}
        record = SlotRecord(SlotState.PENDING, plan.version, identity, None, False, records, plan.boot_variables)
        await asyncio.to_thread(self._finish, record, {name: each.header for name, each in done.items()})
        return Written(
            slot=self._slot.name,
            image_bytes=sum(each.record.size for each in done.values()),
            downloaded_bytes=sum(each.downloaded for each in done.values()),
            reused_bytes=sum(each.reused for each in done.values()),
            zero_bytes=sum(each.zero for each in done.values()),
            parts={image.part.device: done[image.part.name].record.digest for image in plan.images},
        )

    def _open(self, image: PlannedImage, opened: ExitStack) -> Part:
        """The part, open for writing, after it was seen to be no part of the running slot and large enough."""
        file = opened.enter_context(self._disk.open_device(image.part.path))
        identity = _identity(os.fstat(file.fileno()), image.part.path)
        for active in self._active.parts:
            try:
                is_same = _identity(active.path.stat(), active.path) == identity
            except OSError as error:
                raise SlotError(f"part {active.name} of the running slot: {active.path}: {error.strerror or error}") from error
            if is_same:
                raise SlotError(
                    f"{image.part.path} is {active.path} of the running slot {self._active.name}; it is never written"
                )
        part = Part(image.part.name, file)
        part.require(image.size)
        return part

    def _begin(self, plan: SlotPlan, identity: Digest, before: SlotRecord) -> Mapping[str, PartRecord]:
        """From here on the slot holds nothing complete. Returns the records of parts that are not written."""
        self._disk.make_folder(self._tools.scripts, mode=0o700)
        forget_scripts(self._tools.scripts)
        written = {image.part.name for image in plan.images}
        untouched = {name: record for name, record in before.parts.items() if name not in written}
        self._records.write(self._slot.name, SlotRecord(writing=identity, parts=untouched))
        return untouched

    def _finish(self, record: SlotRecord, headers: Mapping[str, HeaderIndex | None]) -> None:
        for part, header in headers.items():
            if header is None:
                self._records.forget_header(self._slot.name, part)
            else:
                self._records.keep_header(self._slot.name, part, header)
        self._records.write(self._slot.name, record)

    async def _run_scripts(self, plan: SlotPlan, phase: Phase) -> None:
        paths = {f"FIELDRELAY_PART_{_shell_name(part.name)}": str(part.path) for part in self._slot.parts}
        await run_scripts(
            plan.scripts,
            phase,
            folder=self._tools.scripts,
            timeout_s=self._tools.script_timeout_s,
            environment={"FIELDRELAY_SLOT": self._slot.name, **paths},
        )

    async def _write_image(
        self, bundle: VerifiedBundle, image: PlannedImage, part: Part, chunks: ChunkSource, advance: _Advance, *, resume: bool
    ) -> _Done:
        if image.remote is None:
            done = await _write_raw(RawWriter(bundle, image.entry, part, resume=resume), advance)
        else:
            done = await self._write_delta(image, image.remote, part, chunks, advance, resume=resume)
        if image.verity is not None:
            tool, timeout_s = self._tools.verity, self._tools.verity_timeout_s
            await verify_tree(image.part.path, image.verity, tool=tool, timeout_s=timeout_s)
        return done

    async def _write_delta(
        self, image: PlannedImage, remote: RemoteChunks, part: Part, chunks: ChunkSource, advance: _Advance, *, resume: bool
    ) -> _Done:
        placed = await asyncio.to_thread(self._records.header, self._slot.name, image.part.name)
        with remote.source.path.open("rb", buffering=0) as file:
            old = await self._old_image(remote.source, file.fileno(), remote.index.header.image_size)
            writer = DeltaWriter(remote.index, part, old=old, placed=placed, resume=resume)
            await writer.write(remote.url, chunks, advance)
        await in_batches(writer.read_back(), _quiet)
        tally, header = writer.tally, remote.index.header
        record = PartRecord(header.image_size, remote.index.sha256)
        return _Done(record, tally.downloaded, tally.kept + tally.reused, tally.zero, header)

    async def _old_image(self, source: PartConfig, descriptor: int, new_size: int) -> OldImage:
        """What the running slot holds: by the header kept of it, else by cutting it into chunks again."""
        read = _forgiving_reader(descriptor)
        known = await asyncio.to_thread(self._known_image, source, read)
        if known is not None:
            return known
        record = (await asyncio.to_thread(self._records.read, self._active.name)).parts.get(source.name)
        capacity = os.lseek(descriptor, 0, os.SEEK_END)
        pieces: list[tuple[int, int, bytes]] = []
        size = min(record.size, capacity) if record else capacity
        await in_batches(_cut_again(read, size, new_size, pieces), _quiet)
        return OldImage(read, Source(pieces))

    def _known_image(self, source: PartConfig, read: Read) -> OldImage | None:
        """By the kept header, unless the record says that something else is in the part."""
        header = self._records.header(self._active.name, source.name)
        record = self._records.read(self._active.name).parts.get(source.name)
        if header is None:
            return None
        digest = digest_of(header.raw)
        if record is not None and record.digest != digest:
            return None
        try:
            return OldImage(read, Source.of_index(header), digest, header.image_size)
        except UnsupportedError:
            return None


async def _write_raw(writer: RawWriter, advance: _Advance) -> _Done:
    await in_batches(writer.write(), advance)
    await in_batches(writer.read_back(), _quiet)
    return _Done(PartRecord(writer.size, writer.sha256), reused=writer.kept_bytes)


def _cut_again(read: Read, size: int, likely_end: int, pieces: list[tuple[int, int, bytes]]) -> Iterator[int]:
    """Fill `pieces`; an old image that cannot be read further gives what it could.

    Where an image ends in its part is not known, and its last chunk ends there: the size of the new one is a good guess.
    """
    try:
        for piece in index_image(read, size):
            offset, length, _ = piece
            pieces.append(piece)
            if offset < likely_end < offset + length:
                last = read(offset, likely_end - offset)
                pieces.append((offset, len(last), hashlib.sha256(last).digest()))
            yield length
    except CorruptError:
        return


def _forgiving_reader(descriptor: int) -> Read:
    """Positioned reads of an old image, where a block that cannot be read is merely not at hand."""

    def read(offset: int, size: int) -> bytes:
        try:
            return os.pread(descriptor, size, offset)
        except OSError:
            return b""

    return read


def _identity(status: os.stat_result, path: Path) -> tuple[str, int, int]:
    """What makes two paths the same part; `SlotError` for what is neither a block device nor a file."""
    if stat.S_ISBLK(status.st_mode):
        return "device", os.major(status.st_rdev), os.minor(status.st_rdev)
    if stat.S_ISREG(status.st_mode):
        return "file", status.st_dev, status.st_ino
    raise SlotError(f"{path} is neither a block device nor a file; a slot cannot be there")


def _meter(progress: Progress, total: int) -> _Advance:
    """Tell `progress` how much is in place; a compressed image that does not say its size makes the total grow."""
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(done, max(done, total))

    return advance


def _shell_name(name: str) -> str:
    """A part's name as a shell can spell it in a variable."""
    return "".join(character if character.isalnum() else "_" for character in name.upper())


def _quiet(_size: int) -> None:
    """Nothing is put in place."""
