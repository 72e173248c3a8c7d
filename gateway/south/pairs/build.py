"""Puts the offer of pair patches together from configuration."""

from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.config import SouthSection
from gateway.south.open_files import OpenFiles
from gateway.south.pairs.bases import Bases, Listed
from gateway.south.pairs.server import Catalogue, Images, PairPatches
from gateway.south.pairs.shelf import Shelf
from gateway.south.pairs.workshop import Bounds, Workshop
from gateway.south.relays import Find
from gateway.south.routes import Part
from update.durable import Disk
from update.store.store import Store
from update.trust.verified import TargetInfo

Background = Callable[[Coroutine[object, object, object], str], None]
"""Begins work that lasts as long as the gateway."""


class Mirrored(Catalogue, Listed, Protocol):
    """What every repository lists: `gateway.north.mirrors.Mirrors`."""


class Room(Protocol):
    """Where patches are kept: `gateway.north.room.Room`."""

    store: Store

    async def grow(self, info: TargetInfo, needed_bytes: int) -> None:
        """Make room for so many more bytes; `NoSpaceError` if there is none."""
        ...


def pair_patches(
    south: SouthSection, mirrored: Mirrored, room: Room, *, disk: Disk, find: Find, files: OpenFiles, begin: Background
) -> tuple[Part, ...]:
    """The part that offers them, or none; its work begins in the background. Errors: `StoreError`."""
    section, shelf = south.pair_patches, Shelf(disk, room.store.layout.pairs)
    if not section.enabled:
        shelf.clear()
        return ()
    bounds = Bounds(section.max_image_bytes, section.maker_memory_bytes, section.maker_time_s)
    workshop = Workshop(shelf, room.grow, bounds)
    begin(workshop.run(), "pair patches")
    images = Images(mirrored, find, Bases(mirrored, room.store, find))
    return (PairPatches(images, shelf, workshop, files, memory_bytes=section.memory_bytes),)
