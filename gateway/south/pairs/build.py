"""Puts the offer of pair patches together from configuration."""

from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.config import PairPatchesSection
from gateway.south.open_files import OpenFiles
from gateway.south.pairs.bases import Bases, Listed
from gateway.south.pairs.server import Catalogue, Images, PairPatches
from gateway.south.pairs.shelf import Shelf
from gateway.south.pairs.workshop import Bounds, Grow, Workshop
from gateway.south.relays import Find
from gateway.south.routes import Part
from update.durable import Disk
from update.store.store import Store

Background = Callable[[Coroutine[object, object, object], str], None]
"""Begins work that lasts as long as the gateway."""


class Mirrored(Catalogue, Listed, Protocol):
    """What every repository lists: `gateway.north.mirrors.Mirrors`."""


def pair_patches(
    section: PairPatchesSection,
    mirrored: Mirrored,
    store: Store,
    disk: Disk,
    *,
    find: Find,
    grow: Grow,
    files: OpenFiles,
    background: Background,
) -> tuple[Part, ...]:
    """The part that offers them, or none; its work begins in the background. Errors: `StoreError`."""
    shelf = Shelf(disk, store.layout.pairs)
    if not section.enabled:
        shelf.clear()
        return ()
    bounds = Bounds(section.max_image_bytes, section.maker_memory_bytes, section.maker_time_s)
    workshop = Workshop(shelf, grow, bounds)
    background(workshop.run(), "pair patches")
    images = Images(mirrored, find, Bases(mirrored, store, find))
    return (PairPatches(images, shelf, workshop, files, memory_bytes=section.memory_bytes),)
