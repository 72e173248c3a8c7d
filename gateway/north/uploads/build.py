"""What takes in pushes, built as it is configured."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from aiohttp import web

from gateway.config import GatewayConfig, StateFolder
from gateway.fleet.build import Fleet
from gateway.fleet.by_hand import ByHand
from gateway.north.calls.build import calls
from gateway.north.elsewhere import Begin
from gateway.north.looking import Looking
from gateway.north.means import Common
from gateway.north.mirrors import Mirrors
from gateway.north.uploads.adoption import Adoption, Chunks
from gateway.north.uploads.events import Events
from gateway.north.uploads.pushers import Pushers
from gateway.north.uploads.resources import PushResources
from gateway.north.uploads.shelf import Limits, Shelf
from gateway.north.uploads.tus import Tus
from update.durable import Disk
from update.errors import StoreError

_LOG = logging.getLogger(__name__)
_STALLED_S: Final = 60.0
_SWEEP_S: Final = 60.0


class Door:
    """All resources for pushers."""

    def __init__(self, resources: PushResources, tus: Tus) -> None:
        self._parts = (resources, tus)

    def routes(self) -> list[web.RouteDef]:
        """Below `/push/v1/`."""
        return [route for part in self._parts for route in part.routes()]


async def begin_pushes(
    config: GatewayConfig,
    common: Common,
    fleet: Fleet,
    hasten: Callable[[], None],
    *,
    mirrors: Mirrors,
    chunks: Chunks,
    disk: Disk,
    now: Callable[[], datetime],
    begin: Begin,
) -> list[Door]:
    """What answers pushers, where that is switched on, and the streams that are listened to; unfinished pushes are taken up.

    `hasten` has the assigners elsewhere asked soon. Errors: `StoreError`, `ConfigurationError`.
    """
    section = config.push
    looking = Looking(mirrors, hasten, every_s=section.look_every_s)
    outwards = calls(config, common.session, looking)
    if section.enabled or outwards:
        begin(looking.run(), "look")
    for call in outwards:
        begin(call.run(), "call")
    if not section.enabled:
        return []
    limits = Limits(section.expire_s, section.max_file_bytes, config.store.reserve_bytes)
    shelf = Shelf(disk, StateFolder(config.gateway.state).pushes, limits, lambda: now().timestamp())
    await shelf.load()
    pushers = Pushers(section.pusher, now)
    by_hand = ByHand(common.database, mirrors, fleet.assigner, fleet.takeover, override=False)
    adoption = Adoption(shelf, mirrors, chunks, common.vouched, by_hand)
    resources = PushResources(pushers, shelf, adoption, looking, Events(mirrors), mirrors=mirrors, store=common.room.store)
    begin(_keep_swept(shelf, resources), "push")
    return [Door(resources, Tus(shelf, pushers, stalled_s=_STALLED_S))]


async def _keep_swept(shelf: Shelf, resources: PushResources) -> None:
    try:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await shelf.sweep()
            except StoreError as error:
                _LOG.warning("pushes that are over cannot be removed: %s (%s)", error, error.code)
    finally:
        await resources.close()
