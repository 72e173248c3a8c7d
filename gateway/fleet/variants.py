"""Delta or whole: a delta is offered only while what the node will ask for can be had.

A stock client gives its update up at the first chunk that does not come, and does not fall back by itself (measured with
swupdate 2022.12). So whoever offers it a bundle asks here first. Rules:

1. What brings the same release is signed (`catalogue.siblings`).
2. What the node has is the index of what it runs, as it was installed. One that is not known has nothing: everything is
   asked for.
3. A stock client takes a chunk from its source only by digest and size, asks for every other one wherever it occurs, zeros
   included, and never finds the last chunk of its source (2022.12; fixed upstream in 2024).
4. A chunk can be had if the gateway holds it, or if any upstream could be reached lately. Such a one may still fail: the
   relay holds the request, and refuses it before the first byte if it must.
5. Of the deltas that can be completed the one that asks for least is offered, else the whole bundle, if it is stored; else
   nothing now, and the node hears of its action when that has changed.
6. A bundle that leads from another one (`deltaFrom`: SWUpdate's `rdiff_image`) reports success on any other base and leaves
   garbage (measured with 2022.12). It is offered only to a node whose running bundle is known by its digest, never by its
   version, and is of the release that the signed metadata names. It asks for nothing, so it costs what it weighs.
7. What was ordered is offered as it is if metadata no longer lists it: nothing is known of it then.
8. A bundle that no metadata ever listed is judged by the same rules; in which forms it has come, `unlisted` knows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.database.records import Action, ClientKind, Node, Release, Running
from gateway.fleet.catalogue import BUNDLE_SUFFIXES, Catalogue, siblings
from gateway.fleet.unlisted import Unlisted, unlisted_info
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest
from update.trust.verified import Provenance, TargetInfo

Holds = Callable[[int], bool]
"""Whether the gateway has a chunk, by its number."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a bundle would take besides itself: bytes of compressed chunks, as they travel, and whether they can be had.

    `asked_bytes` is what the node asks of the gateway, `missing_bytes` what of it the gateway asks of `upstreams`. A bundle
    that is `whole` asks for nothing; one that is not stored counts as one missing chunk that nobody has.
    """

    asked_bytes: int
    missing_bytes: int
    missing_chunks: int
    upstreams: tuple[str, ...]
    whole: bool = False

    @property
    def complete(self) -> bool:
        """Whether the node's update can be completed, as far as can be known now."""
        return not self.missing_chunks or bool(self.upstreams)


WHOLE = Outlook(0, 0, 0, (), whole=True)
ABSENT = Outlook(0, 0, 1, (), whole=True)


class Prospects(Protocol):
    """Who knows what a bundle takes."""

    async def outlook(self, bundle: TargetInfo, installed: Sequence[TargetInfo]) -> Outlook:
        """What `bundle` takes of a node that runs what `installed` bring, one as well as another; empty: unknown."""
        ...


def asked_by_stock(new: HeaderIndex, installed: HeaderIndex | None) -> tuple[int, ...]:
    """Numbers of the chunks that a stock client asks for, ascending (rules 2 and 3)."""
    found = set[tuple[bytes, int]]()
    if installed is not None and installed.has_digests and installed.chunk_hash is new.chunk_hash:
        found = {(installed.digest_of(number), installed.size_of(number)) for number in range(len(installed) - 1)}
    return tuple(chunk.index for chunk in new if chunk.length and not (new.has_digests and (chunk.digest, chunk.size) in found))


def outlook(new: HeaderIndex, installed: HeaderIndex | None, holds: Holds, reachable: Collection[str]) -> Outlook:
    """What the delta to `new` takes of a node that runs `installed` (None: unknown); `reachable` names upstreams."""
    asked = asked_by_stock(new, installed)
    missing = [number for number in asked if not holds(number)]
    return Outlook(
        asked_bytes=sum(new[number].length for number in asked),
        missing_bytes=sum(new[number].length for number in missing),
        missing_chunks=len(missing),
        upstreams=tuple(sorted(reachable)),
    )


def together(parts: Sequence[Outlook]) -> Outlook:
    """The images of one bundle: it can be completed if each of them can."""
    names = {name for part in parts for name in part.upstreams} if all(part.complete for part in parts) else ()
    return Outlook(
        asked_bytes=sum(part.asked_bytes for part in parts),
        missing_bytes=sum(part.missing_bytes for part in parts),
        missing_chunks=sum(part.missing_chunks for part in parts),
        upstreams=tuple(sorted(names)),
    )


def pick(outlooks: Mapping[TargetInfo, Outlook]) -> TargetInfo | None:
    """The bundle to offer (rules 5 and 6)."""
    good = [(*_cost(info, each), info.path, info) for info, each in outlooks.items() if each.complete]
    return min(good, key=lambda each: each[:3])[3] if good else None


def _cost(info: TargetInfo, outlook: Outlook) -> tuple[bool, int]:
    """Whole bundles last; among the others, the bytes that they take."""
    if info.custom.delta_from is not None:
        return False, info.length
    return outlook.whole, outlook.asked_bytes


def fits(bundle: TargetInfo, running: Running, listed: Sequence[TargetInfo]) -> bool:
    """Whether a node that runs `running` has what `bundle` leads from (rule 6)."""
    base = bundle.custom.delta_from
    if base is None or not running.sha256:
        return base is None
    same = {each.sha256 for info in listed if info.sha256 == running.sha256 for each in siblings(info, listed)}
    return base in {running.sha256, *same}


class Variants:
    """What each node is offered of what is wanted on it."""

    def __init__(self, catalogue: Catalogue, prospects: Prospects, unlisted: Unlisted | None = None) -> None:
        self._catalogue = catalogue
        self._prospects = prospects
        self._unlisted = unlisted or Unlisted()

    async def offered(self, node: Node, action: Action) -> Release | None:
        """The release as this node gets it; None while nothing of it can be completed. Only stock swupdate needs a choice."""
        wanted = action.release
        if node.kind is not ClientKind.SWUPDATE:
            return wanted
        if wanted.provenance is Provenance.CMS:
            return await self._offered_unlisted(node, wanted)
        listed = self._catalogue.targets(wanted.repository)
        target = next((info for info in listed if (info.path, info.sha256) == (wanted.path, wanted.sha256)), None)
        if target is None:
            return wanted
        installed = running_bundles(node.running, target, listed)
        possible = [info for info in siblings(target, listed) if fits(info, node.running, listed)]
        outlooks = {info: await self._prospects.outlook(info, installed) for info in possible}
        chosen = pick(outlooks)
        if chosen is None:
            return None
        return Release(chosen.repository, chosen.path, chosen.sha256, chosen.length, chosen.custom.version, wanted.provenance)

    async def _offered_unlisted(self, node: Node, wanted: Release) -> Release | None:
        if self._unlisted.is_whole(wanted):
            return wanted
        forms = {unlisted_info(each): each for each in self._unlisted.forms(wanted)}
        installed = self._running_unlisted(node.running, wanted)
        chosen = pick({info: await self._prospects.outlook(info, installed) for info in forms})
        return None if chosen is None else forms[chosen]

    def _running_unlisted(self, running: Running, wanted: Release) -> tuple[TargetInfo, ...]:
        """What brings what a node runs, whoever it came from."""
        joined = [unlisted_info(each) for each in self._unlisted.joined(Digest(running.sha256))]
        listed = self._catalogue.targets(wanted.repository)
        return (*joined, *running_bundles(running, unlisted_info(wanted), listed))


def running_bundles(running: Running, wanted: TargetInfo, listed: Sequence[TargetInfo]) -> tuple[TargetInfo, ...]:
    """The bundles that bring what a node runs, by its word: its digest, else its version for the hardware of `wanted`."""
    bundles = [info for info in listed if info.path.endswith(BUNDLE_SUFFIXES)]
    exact = [info for info in bundles if running.sha256 and info.sha256 == running.sha256]
    kind = running.version, wanted.custom.hw_ids
    alike = [info for info in bundles if running.version and (info.custom.version, info.custom.hw_ids) == kind]
    return tuple(dict.fromkeys(info for each in exact or alike for info in siblings(each, listed)))
