"""Artifacts of hawkBit as the bodies of deltas: one more place where the relay gets chunks from.

A deployment that has a delta bundle may hold the `.zck` that it fetches from, as one more artifact. Rules:

1. Which artifact is the body is found by its bytes: one that is as long as the signed header says, and begins with that very
   header (SHA-256). Names only decide which is compared first. Every chunk is verified by the relay besides.
2. An artifact has an address and a credential for each target that it is assigned to; any of them does.
3. hawkBit does not tell that an artifact was deleted. So whoever is to offer a delta has it looked up (`look`), at most once in
   `CHECK_S`: in the deployment, for a look there is cheap, while every request for an artifact, each range of it too, becomes an
   entry in the history of the action, of which there are 1000.
4. What failed is asked again after `AWAY_S`; 404 means that this target has it no longer.
5. After a start, nobody knows where anything is before the servers were asked for their deployments. A node that was in the
   middle of a delta waits for that, up to `START_S`.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.north.hawkbit.meaning import Artifact, artifacts_of
from gateway.single_flight import SingleFlight
from update.bundle.deltas import Body
from update.chunks.ranges import Range
from update.digest import Digest, digest_of
from update.errors import FieldrelayError, NotFoundError, UnreachableError
from update.trust.verified import TargetInfo, ZckHeader
from update.wire import ddi
from update.wire.habits import Habits, Peer
from update.wire.ranged import Spare

_LOG = logging.getLogger(__name__)

CHECK_S: Final = 60.0
AWAY_S: Final = 300.0
PATIENCE_S: Final = 5.0
"""So long whoever asks waits for a look; it goes on without him."""
START_S: Final = 120.0
MAX_BODIES: Final = 256
MAX_PLACES: Final = 16
"""Of one body; each is good for all nodes."""
MAX_FRONT_BYTES: Final = 1 << 20
"""Of a header that was compared and is kept until the relay asks for it."""
_MAX_ASKED = 4
_NEVER = float("-inf")


class Client(Protocol):
    """One server, as any of its targets may ask it (`client`)."""

    url: str

    async def deployment(self, controller: str, action: str) -> ddi.DeploymentBody:
        """What is to be installed."""
        ...

    def read_ranges(
        self, controller: str, href: str, ranges: Sequence[Range], *, peer: Peer | None = None, spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Ranges of an artifact."""
        ...


@dataclass(slots=True, eq=False)
class Place:
    """An artifact as one target may fetch it: whether it `is_there`, as of `checked_s`; it failed last at `failed_s`."""

    client: Client
    controller: str
    action: str
    artifact: Artifact
    is_there: bool = False
    checked_s: float = _NEVER
    failed_s: float = _NEVER


class HawkbitBodies:
    """The artifacts of all servers. `expecting`: there are any; `clock` gives seconds that never go back."""

    def __init__(
        self,
        *,
        expecting: bool = False,
        patience_s: float = PATIENCE_S,
        habits: Habits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._habits = habits or Habits()
        self._clock = clock
        self._expected_until_s = clock() + START_S if expecting else _NEVER
        self._news = asyncio.Event()
        self._places: OrderedDict[ZckHeader, list[Place]] = OrderedDict()
        self._matched: dict[ZckHeader, Digest] = {}
        self._fronts: dict[ZckHeader, bytes] = {}
        self._looks: SingleFlight[ZckHeader, None] = SingleFlight()

    def note(self, client: Client, controller: str, action: str, wanted: Iterable[Body], artifacts: Sequence[Artifact]) -> None:
        """A target may fetch `artifacts` as long as it has `action`; those that may be one of the bodies `wanted` are kept."""
        for body in wanted:
            fitting = sorted((each for each in artifacts if each.length == body.length), key=lambda each: not each.looks_chunked)
            old = self._places.pop(body.header, [])
            kept = [each for each in old if (each.client, each.controller) != (client, controller)]
            new = [self._seen(body.header, _again(old, Place(client, controller, action, each))) for each in fitting]
            if places := [*new, *kept][:MAX_PLACES]:
                self._places[body.header] = places
        self._tell()
        while len(self._places) > MAX_BODIES:
            header, _ = self._places.popitem(last=False)
            self._matched.pop(header, None)
            self._fronts.pop(header, None)

    async def look(self, info: TargetInfo) -> None:
        """Find out whether a body is there, unless that was done a moment ago; trouble is logged."""
        if info.custom.zck_header is not None:
            await self.look_for(info.custom.zck_header)

    async def look_for(self, header: ZckHeader) -> None:
        """The same by its header."""
        if self._is_due(header):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await self._looks.share(header, lambda: self._look(header))

    def sources_of(self, info: TargetInfo) -> tuple["ArtifactSource | AwaitedSource", ...]:
        """Every target that has the artifact: those that were looked at last first, those that failed lately last."""
        places = sorted(self._there(info), key=lambda each: (self._is_away(each), -each.checked_s))
        if not places and not info.role and self._clock() < self._expected_until_s:
            return (AwaitedSource(info, self),)
        return tuple(ArtifactSource(each, info.custom.zck_header, self, self._habits.of(each.client.url)) for each in places)

    async def first(self, info: TargetInfo) -> "ArtifactSource":
        """Who has a body, as soon as that is known. Errors: `UnreachableError`."""
        while True:
            match self.sources_of(info):
                case (ArtifactSource() as source, *_):
                    return source
                case ():
                    raise UnreachableError("no deployment of any hawkBit has the artifact")
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._expected_until_s - self._clock())):
                    await self._news.wait()

    def reachable(self, info: TargetInfo) -> tuple[str, ...]:
        """Where it could be had lately."""
        return tuple(each.artifact.href for each in self._there(info) if not self._is_away(each))

    async def close(self) -> None:
        """End what is under way."""
        await self._looks.close()

    def front(self, header: ZckHeader | None, ranges: Sequence[Range]) -> bytes | None:
        """The header, if it is asked for and was compared before: given out once, for the relay keeps it."""
        if header is None or tuple(ranges) != (Range(0, header.length),):
            return None
        return self._fronts.pop(header, None)

    def failed(self, place: Place) -> None:
        """It did not do what it should."""
        place.failed_s = self._clock()

    def lost(self, place: Place) -> None:
        """Its target has it no longer."""
        place.is_there, place.checked_s = False, self._clock()

    def _seen(self, header: ZckHeader, place: Place) -> Place:
        """The deployment names it now; whether it is the body may be known."""
        if self._matched.get(header) == place.artifact.sha256:
            place.is_there, place.checked_s = True, self._clock()
        return place

    def _tell(self) -> None:
        """Who waits for a place looks again."""
        self._news.set()
        self._news = asyncio.Event()

    def _there(self, info: TargetInfo) -> list[Place]:
        header = info.custom.zck_header
        return [] if header is None else [each for each in self._places.get(header, []) if each.is_there]

    def _is_away(self, place: Place) -> bool:
        return self._clock() - place.failed_s < AWAY_S

    def _is_due(self, header: ZckHeader) -> bool:
        places, now_s = self._places.get(header, []), self._clock()
        return bool(places) and not any(each.is_there and now_s - each.checked_s < CHECK_S for each in places)

    async def _look(self, header: ZckHeader) -> None:
        """Ask until one has it; a few of many, those that were asked longest ago first."""
        places = [each for each in self._places.get(header, []) if not self._is_away(each) and self._is_old(each)]
        for place in sorted(places, key=lambda each: each.checked_s)[:_MAX_ASKED]:
            try:
                place.is_there = await self._has(place, header)
            except NotFoundError:
                self.lost(place)
                continue
            except FieldrelayError as error:
                _LOG.warning("artifact %s cannot be looked at: %s (%s)", place.artifact.href, error, error.code)
                self.failed(place)
                continue
            place.checked_s = self._clock()
            if place.is_there:
                self._tell()
                return

    def _is_old(self, place: Place) -> bool:
        return self._clock() - place.checked_s >= CHECK_S

    async def _has(self, place: Place, header: ZckHeader) -> bool:
        if self._matched.get(header) == place.artifact.sha256:
            body = await place.client.deployment(place.controller, place.action)
            return place.artifact in artifacts_of(body)
        if await self._begins_with(place, header):
            self._matched[header] = place.artifact.sha256
            return True
        _LOG.info("artifact %s is as long as the body of a delta, and is another", place.artifact.href)
        self._places[header] = [each for each in self._places.get(header, []) if each is not place]
        return False

    async def _begins_with(self, place: Place, header: ZckHeader) -> bool:
        raw = bytearray()
        peer, front = self._habits.of(place.client.url), (Range(0, header.length),)
        reading = place.client.read_ranges(place.controller, place.artifact.href, front, peer=peer)
        async with aclosing(reading) as pieces:
            async for offset, piece in pieces:
                raw[offset:] = piece
        same = digest_of(bytes(raw)) == header.sha256
        if same and len(raw) <= MAX_FRONT_BYTES:
            self._fronts[header] = bytes(raw)
        return same


@dataclass(frozen=True, slots=True)
class ArtifactSource:
    """One target's artifact, as the relay asks for it."""

    place: Place
    header: ZckHeader | None
    bodies: HawkbitBodies
    peer: Peer

    @property
    def name(self) -> str:
        """Its address."""
        return self.place.artifact.href

    @property
    def ranged(self) -> bool:
        """Whether the server has answered a range with that range, and does not ignore them since."""
        return self.peer.manners.partial

    async def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start. Errors: `WireError`."""
        place = self.place
        if (front := self.bodies.front(self.header, ranges)) is not None:
            yield 0, front
            return
        reading = place.client.read_ranges(place.controller, self.name, ranges, peer=self.peer, spare=spare)
        try:
            async with aclosing(reading) as pieces:
                async for piece in pieces:
                    yield piece
        except NotFoundError:
            self.bodies.lost(place)
            raise

    def failed(self) -> None:
        """Ask others first for a while."""
        self.bodies.failed(self.place)


@dataclass(frozen=True, slots=True)
class AwaitedSource:
    """A body of which nobody knows yet where it is (rule 5)."""

    info: TargetInfo
    bodies: HawkbitBodies
    name: str = "an artifact of hawkBit"
    ranged: bool = False

    async def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """As of `ArtifactSource`, once there is one. Errors: `WireError`."""
        source = await self.bodies.first(self.info)
        async with aclosing(source.read_ranges(ranges, spare)) as pieces:
            async for piece in pieces:
                yield piece

    def failed(self) -> None:
        """It is asked for anew anyway."""


def _again(old: Sequence[Place], new: Place) -> Place:
    """The same place as it is known already."""
    own = (new.client, new.controller, new.action, new.artifact)
    return next((each for each in old if (each.client, each.controller, each.action, each.artifact) == own), new)
