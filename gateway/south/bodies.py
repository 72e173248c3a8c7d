"""Where the bodies of registered URLs come from: the upstreams of their repository, and what else may have them.

A body is known by the digest of its zchunk header, and every chunk is compared with that header on its way in. So a place
needs no trust: whatever holds the bytes of that header may be asked, be it the server that a signed URL names, an artifact of
hawkBit or a stick. `BodySource` is all that such a place is; `Bodies` asks them in their order.

The server that a URL names is asked only for bodies that no target carries, and only where the repository allows its host
(`registry`). A URL whose name leads back to this gateway, as nodes resolve it, would have it wait for itself: every request
says in `Via` from whom it comes (RFC 9110 section 7.6.3), and the gateway refuses its own (`proxy`).
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from gateway.south.origins import RangeSource
from gateway.south.registry import Registry
from gateway.south.signed_urls import authority_of_key
from update.chunks.ranges import Range
from update.trust.verified import TargetInfo
from update.wire.habits import Habits, Peer
from update.wire.http import Manner
from update.wire.line import FREE, Line
from update.wire.ranged import Spare, read_ranges
from update.wire.rate import Patience, Retry

AWAY_S: Final = 300.0
"""After so long, a server that failed may be there again: nobody asks it but for bodies."""
MAX_PLACES: Final = 256


class BodySource(Protocol):
    """One more place where bodies may be."""

    def sources_of(self, info: TargetInfo) -> Sequence[RangeSource]:
        """Whom to ask for the chunks of a body, the best first; none if this place cannot have it."""
        ...

    def reachable(self, info: TargetInfo) -> Sequence[str]:
        """The names of those that could be reached lately, or were never asked."""
        ...


class Bodies:
    """Several places, the first of them first."""

    def __init__(self, places: Sequence[BodySource]) -> None:
        self._places = tuple(places)

    def sources_of(self, info: TargetInfo) -> tuple[RangeSource, ...]:
        """All of them."""
        return tuple(source for place in self._places for source in place.sources_of(info))

    def reachable(self, info: TargetInfo) -> tuple[str, ...]:
        """All that could be reached lately."""
        return tuple(name for place in self._places for name in place.reachable(info))


def pseudonym() -> str:
    """A name for this process in `Via`, unlike that of any other gateway."""
    return f"fieldrelay-{secrets.token_hex(8)}"


class SignedOrigins:
    """The servers that signed URLs name. `name` is this gateway's own in `Via`; `clock` gives seconds that never go back."""

    def __init__(
        self,
        registry: Registry,
        session: aiohttp.ClientSession,
        *,
        name: str,
        line: Line = FREE,
        patience: Patience | None = None,
        retry: Retry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._registry = registry
        self._session = session
        self._manner = Manner(patience or Patience(), headers={"Via": f"1.1 {name}"}, line=line)
        self._retry = retry or Retry()
        self._habits = Habits()
        self._away_s: OrderedDict[str, float] = OrderedDict()
        self._clock = clock

    def sources_of(self, info: TargetInfo) -> tuple["SignedSource", ...]:
        """The servers of all URLs that stand for this body; those that failed lately last."""
        places = sorted(self._registry.places_of(info), key=self._is_away)
        return tuple(SignedSource(url, self, self._habits.of(url)) for url in places)

    def reachable(self, info: TargetInfo) -> tuple[str, ...]:
        """Those that have not failed lately."""
        return tuple(url for url in self._registry.places_of(info) if not self._is_away(url))

    async def read(
        self, source: "SignedSource", ranges: Sequence[Range], spare: Spare | None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Get ranges of a body, and remember whether its server did what it should. Errors: `WireError`."""
        reading = read_ranges(
            self._session, source.name, ranges, manner=self._manner, retry=self._retry, peer=source.peer, spare=spare
        )
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece
        self._away_s.pop(authority_of_key(source.name), None)

    def failed(self, url: str) -> None:
        """Its server did not do what it should."""
        place = authority_of_key(url)
        self._away_s[place] = self._clock()
        self._away_s.move_to_end(place)
        while len(self._away_s) > MAX_PLACES:
            self._away_s.popitem(last=False)

    def _is_away(self, url: str) -> bool:
        return self._clock() - self._away_s.get(authority_of_key(url), float("-inf")) < AWAY_S


@dataclass(frozen=True, slots=True)
class SignedSource:
    """One URL, as the relay asks for it; `name` is the URL."""

    name: str
    origins: SignedOrigins
    peer: Peer

    @property
    def ranged(self) -> bool:
        """Whether it has answered a range with that range, and does not ignore them since."""
        return self.peer.manners.partial

    async def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start. Errors: `WireError`."""
        async with aclosing(self.origins.read(self, ranges, spare)) as pieces:
            async for piece in pieces:
                yield piece

    def failed(self) -> None:
        """Ask others first for a while."""
        self.origins.failed(self.name)
