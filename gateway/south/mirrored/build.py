"""Puts the mirrored routes together from configuration, with what earlier runs kept."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from gateway.config import RouteSection
from gateway.south.mirrored.mirror import Mirror, RouteState
from gateway.south.mirrored.objects import Objects
from gateway.south.mirrored.origin import Origin
from gateway.south.mirrored.server import Handler, MirrorServer
from gateway.south.open_files import OpenFiles
from update.durable import Disk


@dataclass(frozen=True, slots=True)
class Routes:
    """All mirrored routes of this gateway; none is fine."""

    mirrors: Sequence[Mirror]
    files: OpenFiles

    def server(self, otherwise: Handler) -> MirrorServer:
        """What answers for them; `otherwise` gets what no route answers."""
        return MirrorServer(self.mirrors, self.files, otherwise)

    def states(self) -> tuple[RouteState, ...]:
        """How each of them stands."""
        return tuple(mirror.state() for mirror in self.mirrors)


@asynccontextmanager
async def mirrored_routes(
    sections: Sequence[RouteSection],
    root: Path,
    disk: Disk,
    session: aiohttp.ClientSession,
    *,
    reserve_bytes: int,
    now: Callable[[], datetime],
) -> AsyncGenerator[Routes]:
    """The routes while the block lasts. Each keeps its content below `root`, in a folder of its name; `StoreError`."""
    mirrors: list[Mirror] = []
    files = OpenFiles()
    try:
        for section in sections:
            objects = Objects(disk, root / section.name, quota_bytes=section.quota_bytes, reserve_bytes=reserve_bytes)
            await asyncio.to_thread(objects.load)
            mirrors.append(Mirror(section, objects, Origin(session, section), now))
        yield Routes(tuple(mirrors), files)
    finally:
        for mirror in mirrors:
            await mirror.close()
        files.close()
