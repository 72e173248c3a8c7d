"""Delta or full: a delta is offered only while what the node will ask for can be had; a pure decision.

A stock client gives its update up at the first chunk that does not come, and does not fall back by itself (measured with
swupdate 2022.12). So whoever offers it a variant asks here first. Rules:

1. What the node has is the index of what it runs, as it was installed. One that is not known has nothing: everything is
   asked for.
2. A stock client takes a chunk from its source only by digest and size, asks for every other one wherever it occurs, zeros
   included, and never finds the last chunk of its source (2022.12; fixed upstream in 2024).
3. A chunk can be had if the gateway holds it, or if any upstream can be reached. An upstream that can be reached may still
   fail: the relay holds such a request, and refuses it before the first byte if it must.
4. Without a delta that can be completed the full variant is offered; without either there is nothing to offer now.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from update.chunks.zchunk import HeaderIndex

Holds = Callable[[int], bool]
"""Whether the gateway has a chunk, by its number, complete and proved."""


class Variant(StrEnum):
    """What a node is offered."""

    DELTA = "delta"
    FULL = "full"
    NOTHING_NOW = "nothing-now"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a delta would take: bytes of compressed chunks, as they travel, and whether they can be had.

    `asked_bytes` is what the node asks of the gateway, `missing_bytes` what of it the gateway asks of `upstreams`.
    """

    asked_bytes: int
    missing_bytes: int
    missing_chunks: int
    upstreams: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the node's update can be completed, as far as can be known now."""
        return not self.missing_chunks or bool(self.upstreams)


def asked_by_stock(new: HeaderIndex, installed: HeaderIndex | None) -> tuple[int, ...]:
    """Numbers of the chunks that a stock client asks for, ascending (rules 1 and 2)."""
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


def choose(delta: Outlook | None, *, full_at_hand: bool, full_reachable: bool) -> Variant:
    """The variant to offer (rules 3 and 4): `delta` is None where the release has none.

    A full variant that is stored beats a delta that has to wait for its upstream no more than the other way round: the
    delta is chosen whenever it can be completed, since it costs the node and the site less.
    """
    if delta is not None and delta.complete:
        return Variant.DELTA
    return Variant.FULL if full_at_hand or full_reachable else Variant.NOTHING_NOW
