"""What a bundle would take of a stock node, from what is stored and relayed here: the facts behind `gateway.fleet.variants`.

- The chunks of a delta are known from its signed header, which is a member of the bundle; those that the node has, from the
  headers of what it runs, image by image by their names.
- The body is what the registry has for the delta's URL, if it pins the delta's own header. A delta whose body nobody has
  cannot be completed.
- Whether an upstream still has a body may have to be asked (`Look`): only while chunks are missing.
- At hand is a chunk of a complete body in the store, and one that the bitmap of a relayed body names. Both are looked up on
  disk and may be wrong for a moment: damaged chunks are noticed when they are served.
- A bundle that is no longer stored, or cannot be proved now, is not offered.

Reading bundles costs time, so those asked for last are remembered (`MAX_BUNDLES`).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gateway.fleet.variants import ABSENT, WHOLE, Holds, Outlook, outlook, together
from gateway.south.registry import Registry
from gateway.south.relays import Find
from gateway.south.signed_urls import signed_key
from gateway.south.sparse import claimed
from update.bundle.deltas import Delta
from update.chunks.zchunk import HeaderIndex
from update.errors import FieldrelayError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

MAX_BUNDLES = 8
"""A header takes at most 16 MiB, and usually some 100 kB."""

DeltasOf = Callable[[TargetInfo], tuple[Delta, ...]]
"""The deltas of a stored bundle, proved; reads all of it. Errors: `StoreError`, `TrustError`, `BundleError`."""
Reachable = Callable[[TargetInfo], Sequence[str]]
"""The names of the upstreams of a body that could be reached lately."""
Look = Callable[[TargetInfo], Awaitable[None]]
"""Has it found out who has a body, as far as that can be known soon; `Reachable` tells the outcome."""


async def _known(_body: TargetInfo) -> None:
    """Nobody need be asked."""


class StoredProspects:
    """`find` looks into the store, `sparse` is the folder of the relayed files. Used on one event loop."""

    def __init__(
        self, deltas_of: DeltasOf, registry: Registry, find: Find, sparse: Path, reachable: Reachable, *, look: Look = _known
    ) -> None:
        self._deltas_of = deltas_of
        self._registry = registry
        self._find = find
        self._sparse = sparse
        self._reachable = reachable
        self._look = look
        self._known: OrderedDict[TargetInfo, tuple[Delta, ...]] = OrderedDict()

    async def outlook(self, bundle: TargetInfo, installed: Sequence[TargetInfo]) -> Outlook:
        """What `bundle` takes of a node that runs what `installed` bring."""
        if await asyncio.to_thread(self._find, bundle) is None:
            return ABSENT
        try:
            deltas = await self._deltas(bundle)
        except FieldrelayError as error:
            _log.warning("%s of %s is not offered: %s (%s)", bundle.path, bundle.repository, error, error.code)
            return ABSENT
        if not deltas:
            return WHOLE
        images = await self._images(installed)
        return together([await self._one(delta, images.get(delta.image)) for delta in deltas])

    async def _one(self, delta: Delta, installed: HeaderIndex | None) -> Outlook:
        body = self._registry.find(signed_key(delta.url) or "")
        pinned = None if body is None else body.custom.zck_header
        if body is None or pinned is None or pinned.sha256 != delta.index.sha256:
            return await asyncio.to_thread(outlook, delta.index.header, installed, _nothing, ())
        holds = await asyncio.to_thread(self._holds, body, delta)
        found = await asyncio.to_thread(outlook, delta.index.header, installed, holds, ())
        if found.complete:
            return found
        await self._look(body)
        return replace(found, upstreams=tuple(sorted(self._reachable(body))))

    def _holds(self, body: TargetInfo, delta: Delta) -> Holds:
        if self._find(body) is not None:
            return _everything
        return claimed(self._sparse / f"{body.sha256}.zck", delta.index)

    async def _images(self, installed: Sequence[TargetInfo]) -> dict[str, HeaderIndex]:
        """What a node has, by image; nothing of what cannot be read."""
        images: dict[str, HeaderIndex] = {}
        for bundle in installed:
            try:
                deltas = await self._deltas(bundle)
            except FieldrelayError as error:
                _log.debug("what %s installed is not known: %s (%s)", bundle.path, error, error.code)
                continue
            for delta in deltas:
                images.setdefault(delta.image, delta.index.header)
        return images

    async def _deltas(self, bundle: TargetInfo) -> tuple[Delta, ...]:
        known = self._known.get(bundle)
        if known is None:
            known = await asyncio.to_thread(self._deltas_of, bundle)
        self._known[bundle] = known
        self._known.move_to_end(bundle)
        while len(self._known) > MAX_BUNDLES:
            self._known.popitem(last=False)
        return known


def _nothing(_number: int) -> bool:
    return False


def _everything(_number: int) -> bool:
    return True
