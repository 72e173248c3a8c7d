"""A gateway's relays as one process of a machine whose disk, threads, time and upstreams are driven by hand.

process = Process(folder, file, Recorder(folder))
process.ask(file.ranges({0, 3}))
process.loop.drain(lambda: ...)
process.end()                                # with process.medium.left == 0: killed, nothing more reaches the disk
"""

import asyncio
import hashlib
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.builders.hand_upstream import HandUpstream, Request
from tests.builders.relay_site import RelaySite
from tests.builders.relayed import index_of, info_of
from tests.builders.stepped import SteppedLoop
from tests.replay import Recorder
from update.chunks.fields import Compression
from update.chunks.header import HeaderBuilder
from update.chunks.plan import merge
from update.chunks.ranges import Range
from update.durable import Kind, Operation
from update.errors import NoSpaceError, StoreError

CHUNKS = 12
HOLD_S = 20.0


class SmallFile:
    """A `.zck` of a few small chunks, two of them alike."""

    def __init__(self, folder: Path) -> None:
        dice, builder = random.Random(3), HeaderBuilder(Compression.NONE)
        parts = [dice.randbytes(dice.randrange(300, 900)) for _ in range(CHUNKS)]
        parts[7] = parts[2]
        for part in parts:
            digest = hashlib.sha256(part).digest()
            builder.add(compressed_digest=digest, digest=digest, length=len(part), size=len(part))
        self.content = builder.build() + b"".join(parts)
        file = folder / "image.zck"
        file.write_bytes(self.content)
        self.info, self.index = info_of(file), index_of(file).header

    def ranges(self, numbers: set[int]) -> list[Range]:
        return list(merge(Range(self.index[number].start, self.index[number].length) for number in numbers))

    def numbers(self, ranges: tuple[Range, ...]) -> set[int]:
        """Chunks that lie in `ranges` completely."""
        touched = {number for span in ranges for number in self.index.covering(span.start, span.length)}
        return {
            number
            for number in touched
            if any(
                span.start <= self.index[number].start and self.index[number].start + self.index[number].length <= span.end
                for span in merge(ranges)
            )
        }

    def is_right(self, held: bytes, number: int) -> bool:
        chunk = self.index[number]
        end = chunk.start + chunk.length
        return held[chunk.start : end] == self.content[chunk.start : end]


class Medium:
    """The disk of one machine as one process sees it: it may be full, and it ends with the process."""

    def __init__(self) -> None:
        self.full = False
        self.left: int | None = None  # operations until the process is killed
        self.was_full = False

    @property
    def dead(self) -> bool:
        return self.left == 0

    def __call__(self, operation: Operation) -> None:
        if self.dead:
            raise StoreError("the process is dead: nothing reaches the disk")
        if self.full and operation.kind in {Kind.WRITE, Kind.CREATE, Kind.TRUNCATE}:
            self.was_full = True
            raise NoSpaceError("the disk is full")
        self.left = None if self.left is None else self.left - 1


class Complaints(logging.Handler):
    """What the relay calls an error of its own, while it has no reason to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


class Process:
    """A gateway's relays from one start to the end of the process, on what is in `folder`."""

    def __init__(self, folder: Path, file: SmallFile, recorder: Recorder) -> None:
        self.loop, self.medium, self.recorder = SteppedLoop(), Medium(), recorder
        self.asked: list[Request] = []
        self.upstreams = [
            HandUpstream("first", file.content, self.asked, ranged=False),
            HandUpstream("second", file.content, self.asked),
        ]
        self.site = RelaySite(folder, {"plant": self.upstreams}, hold_s=HOLD_S, observers=[self.medium, recorder])
        self.sparse = self.site.store.layout.sparse / f"{file.info.sha256}.zck"
        self.tasks: list[asyncio.Task[object]] = []
        self.leases: list[tuple[int, Callable[[], None]]] = []
        self.evicting = False
        self._file = file

    @property
    def requests(self) -> list[Request]:
        return [request for upstream in self.upstreams for request in upstream.open]

    def ask(self, ranges: list[Range]) -> None:
        self.tasks.append(self.loop.create_task(self._read(ranges)))

    async def _read(self, ranges: list[Range]) -> None:
        lease = await self.site.relays.lend(self._file.info, ranges)
        if lease is None:
            stored = await asyncio.to_thread(self.site.find, self._file.info)
            assert stored is not None, "what the relay leaves to the store is not there"
            held = stored.read_bytes()
            assert held == self._file.content
            return
        self.leases.append((lease.descriptor, lease.release))
        for span in ranges:
            assert os.pread(lease.descriptor, span.length, span.start) == self._file.content[span.start : span.end]

    def end(self) -> None:
        """Everything ends; what is left open is given back."""
        while self.leases:
            self.leases.pop()[1]()
        for task in self.tasks:  # as a server does with its handlers; the relay's own work is for it to end
            task.cancel()
        closing = self.loop.create_task(self._close())
        self.loop.drain(lambda: closing.done() and not asyncio.all_tasks(self.loop))
        while self.leases:  # lent while it ended
            self.leases.pop()[1]()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        closing.result()

    async def _close(self) -> None:
        await self.site.relays.close()
