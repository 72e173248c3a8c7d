"""Which chunks nodes are going to ask for: what is worth fetching before they do. A decision over values; reading is injected.

Rules:

1. What counts is what open actions want now, each as was chosen with the order, else as its repository's `prefetch` says:
   nothing, the union of what the nodes lack, or all. A delta for a stock node may be any bundle that brings the same release
   (`catalogue.siblings`).
2. What a node lacks is judged as the node judges it: agents plan a delta (`update.chunks.plan`) and ask for each content once,
   stock clients ask for every chunk that they do not find (`variants.asked_by_stock`). Images are compared by their names.
3. A node whose image is not known here, because it has not said what it runs, or its bundle is no longer listed, stored or
   proved, or brings the image otherwise than by chunks, is left to on demand: guessing all of the image for it would cost the
   line what the node most likely has. It is counted, so that nobody wonders. `full` is the mode that asks for no knowledge.
4. The body of a delta is the target of the same repository that pins the same zchunk header. Without one nothing can be had.
5. What is fetched is cut into pieces that end with a chunk, each of at most `PIECE_BYTES` or one chunk, and `PIECE_RANGES`.

Old indexes are read one bundle at a time, since each may take megabytes, and only when orders or lists have changed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.config import PrefetchMode
from gateway.database.engine import Database
from gateway.database.queries.orders import open_orders
from gateway.database.records import ClientKind, OpenOrder, Running
from gateway.fleet.catalogue import Catalogue, siblings
from gateway.fleet.chosen import chosen_modes
from gateway.fleet.variants import asked_by_stock, running_bundles
from update.bundle.deltas import Delta
from update.chunks.plan import Source, merge, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest
from update.errors import ConfigurationError, FieldrelayError, NotFoundError, UnsupportedError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

NOTHING: Final = PrefetchMode.ON_DEMAND
PIECE_BYTES: Final = 2 << 20
PIECE_RANGES: Final = 60
AGAIN_S: Final = 60.0
"""What could not be read is read again after so long."""

DeltasOf = Callable[[TargetInfo], tuple[Delta, ...]]
"""The deltas of a stored bundle, proved; reads all of it. Errors: `StoreError`, `TrustError`, `BundleError`."""
Listed = Mapping[str, Sequence[TargetInfo]]
"""What each repository lists."""


@dataclass(frozen=True, slots=True)
class Need:
    """What is to be fetched of the image `target`, in `pieces`, for bundles that want it (their digests).

    `nodes` is for how many that was counted, `unknown` how many more were left to on demand.
    """

    target: TargetInfo
    mode: PrefetchMode
    bundles: frozenset[Digest]
    pieces: tuple[tuple[Range, ...], ...]
    nodes: int
    unknown: int

    @property
    def wanted_bytes(self) -> int:
        """Stored bytes of the chunks."""
        return sum(bytes_of(piece) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything that is needed, and why something is not known; `ordered`: every bundle that something may be kept for."""

    ordered: frozenset[Digest] = frozenset()
    images: tuple[Need, ...] = ()
    troubles: tuple[tuple[TargetInfo, PrefetchMode, FieldrelayError], ...] = ()


class Lookout:
    """Sees what is needed now. `modes` are those that the repositories are configured with.

    `provable` names the repositories whose bundles can be proved here; `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        modes: Mapping[str, PrefetchMode],
        deltas_of: DeltasOf,
        *,
        provable: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._modes = dict(modes)
        self._read = deltas_of
        self._provable = frozenset(provable)
        self._clock = clock
        self._seen: object = None
        self._seen_s = 0.0
        self._needs = Needs()

    async def look(self) -> Needs:
        """The same value as long as nothing has changed; what could not be read is tried again. Errors: `StoreError`."""
        async with self._database.reading() as transaction:
            orders, chosen = await open_orders(transaction), await chosen_modes(transaction)
        counted = [(order, chosen.get(order.sha256, self._modes.get(order.repository, NOTHING))) for order in orders]
        names = {order.repository for order, mode in counted if mode is not NOTHING}
        listed = {name: tuple(self._catalogue.targets(name)) for name in names.intersection(self._catalogue.repositories())}
        is_due = bool(self._needs.troubles) and self._clock() - self._seen_s >= AGAIN_S
        if is_due or self._seen != (counted, listed):
            self._needs = await asyncio.to_thread(needs, counted, listed, self._deltas_of)
            self._seen, self._seen_s = (counted, listed), self._clock()
        return self._needs

    def _deltas_of(self, bundle: TargetInfo) -> tuple[Delta, ...]:
        if bundle.repository not in self._provable:
            raise ConfigurationError(
                f"which images {bundle.path} fetches is not known: repository {bundle.repository} names no cms_roots to prove it"
            )
        return self._read(bundle)


@dataclass(slots=True)
class _Image:
    """One body while it is counted."""

    target: TargetInfo
    mode: PrefetchMode
    index: HeaderIndex
    wanted: set[int] = field(default_factory=set)
    bundles: set[Digest] = field(default_factory=set)
    nodes: int = 0
    unknown: int = 0


def needs(orders: Sequence[tuple[OpenOrder, PrefetchMode]], listed: Listed, deltas_of: DeltasOf) -> Needs:
    """What `orders` need, each in its mode. Reads bundles, so not on an event loop."""
    counted = [(order, mode) for order, mode in orders if mode is not NOTHING]
    images: dict[Digest, _Image] = {}
    troubles: list[tuple[TargetInfo, PrefetchMode, FieldrelayError]] = []
    for (bundle, mode), same in _by_bundle(counted, listed).items():
        try:
            for delta in deltas_of(bundle):
                body = _body(delta, bundle, listed[bundle.repository])
                image = images.setdefault(body.sha256, _Image(body, mode, delta.index.header))
                image.bundles.update(order.sha256 for order in same)
                _count(image, same, mode, _reader(delta.image, bundle, listed[bundle.repository], deltas_of))
        except FieldrelayError as error:
            troubles.append((bundle, mode, error))
    return Needs(frozenset(order.sha256 for order, _ in counted), tuple(map(_need, images.values())), tuple(troubles))


def _by_bundle(
    orders: Iterable[tuple[OpenOrder, PrefetchMode]], listed: Listed
) -> Mapping[tuple[TargetInfo, PrefetchMode], list[OpenOrder]]:
    """Every bundle that may be offered, with the orders that it may be offered for; the oldest order first."""
    found: dict[tuple[TargetInfo, PrefetchMode], list[OpenOrder]] = {}
    for order, mode in orders:
        targets = listed.get(order.repository, ())
        wanted = next((info for info in targets if (info.path, info.sha256) == (order.path, order.sha256)), None)
        if wanted is None:
            _log.debug("prefetch: %s of %s is ordered and not listed", order.path, order.repository)
            continue
        for bundle in siblings(wanted, targets) if order.kind is ClientKind.SWUPDATE else (wanted,):
            found.setdefault((bundle, mode), []).append(order)
    return found


def _body(delta: Delta, bundle: TargetInfo, listed: Iterable[TargetInfo]) -> TargetInfo:
    header = delta.index.sha256, len(delta.index.header.raw)
    for info in listed:
        pinned = info.custom.zck_header
        if pinned is not None and (pinned.sha256, pinned.length) == header:
            return info
    raise NotFoundError(f"{bundle.path} fetches the image {delta.image} by chunks, and {bundle.repository} lists no .zck of it")


def _count(
    image: _Image, orders: Sequence[OpenOrder], mode: PrefetchMode, installed: Callable[[Running], HeaderIndex | None]
) -> None:
    """Add what the nodes of `orders` lack of one image."""
    if mode is PrefetchMode.FULL:
        image.mode = mode
        image.wanted.update(range(len(image.index)))
        image.nodes += sum(order.nodes for order in orders)
        return
    for (kind, running), nodes in _alike(orders).items():
        old = installed(running)
        asked = None if old is None else asked_by(kind, image.index, old)
        if asked is None:
            image.unknown += nodes
        else:
            image.nodes += nodes
            image.wanted.update(asked)


def _alike(orders: Sequence[OpenOrder]) -> dict[tuple[ClientKind, Running], int]:
    alike: dict[tuple[ClientKind, Running], int] = {}
    for order in orders:
        alike[order.kind, order.running] = alike.get((order.kind, order.running), 0) + order.nodes
    return alike


def _reader(
    name: str, bundle: TargetInfo, listed: Sequence[TargetInfo], deltas_of: DeltasOf
) -> Callable[[Running], HeaderIndex | None]:
    """Reads the index of the image `name` as it came with what runs; `bundle` is what is to run."""

    def read(running: Running) -> HeaderIndex | None:
        for each in running_bundles(running, bundle, listed):
            try:
                found = [delta.index.header for delta in deltas_of(each) if delta.image == name]
            except FieldrelayError as error:
                _log.debug("prefetch: what %s installed is not known: %s (%s)", each.path, error, error.code)
                continue
            if found:
                return found[0]
        return None

    return read


def asked_by(kind: ClientKind, new: HeaderIndex, installed: HeaderIndex) -> Collection[int] | None:
    """Numbers of the chunks of `new` that a node of this kind asks for; None if it cannot use the image by chunks."""
    if kind is ClientKind.SWUPDATE:
        return asked_by_stock(new, installed)
    if kind is not ClientKind.AGENT:
        return None
    try:
        plan = plan_delta(new, Source.of_index(installed))
    except UnsupportedError:
        return None
    return {number for span in plan.ranges for number in new.covering(span.start, span.length)}


def _need(image: _Image) -> Need:
    pieces = tuple(_pieces(image.index, sorted(image.wanted)))
    return Need(image.target, image.mode, frozenset(image.bundles), pieces, image.nodes, image.unknown)


def _pieces(index: HeaderIndex, numbers: Iterable[int]) -> Iterator[tuple[Range, ...]]:
    """Rule 5; `numbers` ascending."""
    piece: list[Range] = []
    for number in numbers:
        chunk = index[number]
        span = Range(chunk.start, chunk.length)
        grown = [*piece[:-1], *merge((*piece[-1:], span))]
        if piece and (len(grown) > PIECE_RANGES or bytes_of(grown) > PIECE_BYTES):
            yield tuple(piece)
            grown = [span]
        piece = [part for part in grown if part.length]
    if piece:
        yield tuple(piece)


def bytes_of(ranges: Iterable[Range]) -> int:
    """How many bytes ranges have in all."""
    return sum(span.length for span in ranges)
