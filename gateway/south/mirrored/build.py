"""Puts the mirrored routes together from configuration, with what earlier runs kept."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import aiohttp
from aiohttp import web

from gateway.config import GatewayConfig, StateFolder
from gateway.south.mirrored.mirror import Mirror
from gateway.south.mirrored.objects import Objects
from gateway.south.mirrored.origin import Origin
from gateway.south.mirrored.server import MirrorServer
from gateway.south.open_files import OpenFiles
from gateway.south.proxy import StockContent
from gateway.status import RouteState
from update.durable import Disk
from update.wire.http import Manner
from update.wire.line import FREE, Line

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Routes:
    """All mirrored routes of this gateway; none is fine."""

    mirrors: Sequence[Mirror]
    files: OpenFiles
    served: bool = True

    def before(self, signed: StockContent) -> list[web.RouteDef]:
        """All resources of the plain listener: these routes, and `signed`, which gets what no route answers."""
        return [*MirrorServer(self.mirrors, self.files, signed.answer).routes(), *signed.routes()]

    def states(self) -> tuple[RouteState, ...]:
        """How each of them stands."""
        return tuple(replace(mirror.state(), served=self.served) for mirror in self.mirrors)


@asynccontextmanager
async def mirrored_routes(
    config: GatewayConfig,
    folder: StateFolder,
    disk: Disk,
    session: aiohttp.ClientSession,
    now: Callable[[], datetime],
    *,
    line: Line = FREE,
) -> AsyncGenerator[Routes]:
    """The routes while the block lasts; each keeps its content in a folder of its name. Errors: `StoreError`.

    Whoever configures routes and leaves the listener off is told at the start, and by the status.
    """
    served = config.south.content.enabled
    if config.route and not served:
        names = ", ".join(section.name for section in config.route)
        _LOG.warning("routes are configured and nobody can reach them: %s; south.content.enabled is false", names)
    mirrors: list[Mirror] = []
    files = OpenFiles()
    try:
        for section in config.route:
            root, reserve_bytes = folder.mirrored / section.name, config.store.reserve_bytes
            objects = Objects(disk, root, quota_bytes=section.quota_bytes, reserve_bytes=reserve_bytes)
            await asyncio.to_thread(objects.load)
            mirrors.append(Mirror(section, objects, Origin(session, section, Manner(line=line)), now))
        yield Routes(tuple(mirrors), files, served)
    finally:
        for mirror in mirrors:
            await mirror.close()
        files.close()
