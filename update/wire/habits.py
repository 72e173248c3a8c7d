"""How upstreams answer requests for several ranges: learned from their answers, and remembered across restarts.

Servers differ (measured): multipart for any number of ranges or up to a number, the first range only, one range that covers
all, the whole file (S3; nginx before its cache is filled), 416 (Varnish), an error (minio). Rules:

1. One answer may be an accident: a cache that was cold, another gateway that lacks the rest. What is seen twice in a row is
   a habit. Answers to requests that were under way together count once.
2. A server that refuses many ranges is asked for fewer, at last for one; several requests then go side by side.
3. A habit is doubted after a day, by one request: a server that was repaired gets its many ranges again. One that answers
   with the whole file is asked for a range each time, so it need not be.
4. Losing what was learned costs a few requests, so damage and a full disk are logged and nothing more.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Final

from update.errors import CorruptError, FormatVersionError, ProtocolError, StoreError
from update.store.journal import Journal, JsonValue
from update.wire.http import parse_url

_log = logging.getLogger(__name__)

MOST_RANGES: Final = 150
"""As many as swupdate asks for, so servers of this field are used to it; Apache answers up to 200 (MaxRanges)."""
FEWER_RANGES: Final = 10
CONNECTIONS: Final = 6
GAP_BYTES: Final = 8 << 10
"""What is read to save a request: less than a line of 20 Mbit/s and 40 ms carries while one of six connections waits."""
DOUBT_AFTER_S: Final = 24 * 3600.0
MAX_UPSTREAMS: Final = 64
_IN_A_ROW = 2


class Form(StrEnum):
    """What an answer was."""

    ONE = "the one range"
    PARTS = "all ranges"  # or one that covers them and little else
    FIRST = "the first of several ranges"
    COVER = "one range around all"
    DISORDER = "parts in another order"
    WHOLE = "the whole file"
    REFUSED = "none of several ranges"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: how many ranges, and how much was doubted when it was made."""

    ranges: int
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class Manners:
    """What is known of one upstream; pure. Times in seconds of the epoch."""

    ranges: int = MOST_RANGES  # that one request may name
    whole: bool = False  # ignores ranges
    partial: bool = False  # has answered one range with that range
    since_s: float = 0.0  # when `ranges` was lowered, or last doubted
    strikes: int = 0  # answers in a row that were other than this
    doubted: int = 0  # ranges of the request that struck last

    def limit(self, now_s: float) -> int:
        """How many ranges to ask for (rule 3)."""
        if self.whole:
            return 1
        return self.ranges if 0 <= now_s - self.since_s < DOUBT_AFTER_S else MOST_RANGES

    def fewer(self, ranges: int) -> int:
        """What to ask for next when so many were not answered (rule 2)."""
        if ranges > self.ranges:
            return self.ranges
        return FEWER_RANGES if ranges > FEWER_RANGES else 1

    def asking(self, ranges: int, now_s: float) -> "Manners":
        """A request is made; one that doubts the habit is made by one reader only."""
        return replace(self, since_s=now_s) if ranges > self.ranges else self

    def after(self, asked: Asked, form: Form, now_s: float) -> "Manners":
        """What is known after an answer."""
        if form is Form.ONE or form is Form.PARTS:
            return self._confirmed(asked)
        if asked.strikes != self.strikes or asked.ranges > self.ranges or (self.whole and form is Form.WHOLE):
            return self  # asked before the last strike, or known already
        if self.strikes + 1 < _IN_A_ROW:
            return replace(self, strikes=self.strikes + 1, doubted=asked.ranges)
        if asked.ranges == 1 or (self.doubted == 1 and form is Form.WHOLE):  # not even one range before, so no number of them
            return replace(self, whole=True, partial=False, strikes=0, doubted=0)
        fewer = self.fewer(asked.ranges) if form in {Form.WHOLE, Form.REFUSED} else 1
        return replace(self, ranges=fewer, since_s=now_s, strikes=0, doubted=0)

    def _confirmed(self, asked: Asked) -> "Manners":
        known = replace(self, whole=False, partial=True)
        if asked.ranges > self.ranges:
            return Manners(partial=True)
        return replace(known, strikes=0, doubted=0) if asked.ranges >= self.doubted else known


def _nothing() -> None:
    """Nobody keeps it."""


class Peer:
    """One server as its readers know it: its manners, and the connections that are side by side at most.

    Without arguments: a stranger, asked over one connection, of whom nothing is kept.
    """

    def __init__(
        self,
        manners: Manners | None = None,
        *,
        connections: int = 1,
        gap_bytes: int = 0,
        clock: Callable[[], float] = time.time,
        changed: Callable[[], None] = _nothing,
    ) -> None:
        self.manners = manners or Manners()
        self.connections = connections
        self.gap_bytes = gap_bytes
        self.lanes = asyncio.Semaphore(connections)
        self._clock = clock
        self._changed = changed

    def limit(self) -> int:
        """How many ranges the next request may name."""
        return self.manners.limit(self._clock())

    def ask(self, ranges: int) -> Asked:
        """A request for so many ranges is made."""
        asked = Asked(ranges, self.manners.strikes)
        self._become(self.manners.asking(ranges, self._clock()))
        return asked

    def learn(self, asked: Asked, form: Form) -> None:
        """It was answered."""
        self._become(self.manners.after(asked, form, self._clock()))

    def _become(self, manners: Manners) -> None:
        before, self.manners = self.manners, manners
        if _kept(before) != _kept(manners):
            self._changed()


class Habits:
    """All upstreams of one process. `journal` None: nothing outlives it."""

    def __init__(self, journal: Journal | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._clock = clock
        self._writing = threading.Lock()
        self._dirty = False
        self._peers: dict[str, Peer] = {}
        for place, manners in _read(journal).items():
            self._peers[place] = self._peer(manners)

    def of(self, url: str) -> Peer:
        """The upstream at a base URL: scheme, host, port and path name it; credentials are not kept. `ProtocolError`."""
        place = _place(url)
        peer = self._peers.pop(place, None) or self._peer(Manners())
        self._peers[place] = peer  # the one used last is the last one to be forgotten
        while len(self._peers) > MAX_UPSTREAMS:
            del self._peers[next(iter(self._peers))]
        return peer

    async def keep(self) -> None:
        """Make what was learned durable, if anything was; a failure is logged (rule 4)."""
        if self._dirty and self._journal is not None:
            self._dirty = False
            await asyncio.to_thread(self._write, self._journal)

    def _write(self, journal: Journal) -> None:
        try:
            with self._writing:  # what is known is read here: who waits longest must not write the oldest
                manners = {place: peer.manners for place, peer in tuple(self._peers.items())}
                journal.write({"upstreams": {place: _kept(each) for place, each in manners.items()}})
        except StoreError as error:
            _log.warning("what was learned of the upstreams is not kept: %s (%s)", error, error.code)

    def _peer(self, manners: Manners) -> Peer:
        return Peer(manners, connections=CONNECTIONS, gap_bytes=GAP_BYTES, clock=self._clock, changed=self._note)

    def _note(self) -> None:
        self._dirty = True


def _place(url: str) -> str:
    address = parse_url(url)
    return f"{address.scheme}://{address.host}:{address.port}{address.raw_path}".rstrip("/")


def _kept(manners: Manners) -> Mapping[str, JsonValue]:
    """What is worth keeping: no half-formed doubts."""
    return {
        "ranges": manners.ranges,
        "whole": manners.whole,
        "partial": manners.partial,
        "since_s": int(manners.since_s),
    }


def _read(journal: Journal | None) -> dict[str, Manners]:
    try:
        body = None if journal is None else journal.read()
        return {} if body is None else _entries(body.get("upstreams"))
    except (CorruptError, FormatVersionError, ProtocolError) as error:
        _log.warning("what was learned of the upstreams is lost and is learned again: %s (%s)", error, error.code)
        return {}


def _entries(upstreams: JsonValue) -> dict[str, Manners]:
    if not isinstance(upstreams, Mapping):
        raise CorruptError(f"habits: 'upstreams' is a {type(upstreams).__name__}, not an object")
    return {_place(place): _parsed(place, entry) for place, entry in islice(upstreams.items(), MAX_UPSTREAMS)}


def _parsed(place: str, entry: JsonValue) -> Manners:
    if isinstance(entry, Mapping):
        match entry.get("ranges"), entry.get("since_s"), entry.get("whole"), entry.get("partial"):
            case int(ranges), int(since_s), bool(whole), bool(partial) if 1 <= ranges <= MOST_RANGES:
                return Manners(ranges, whole, partial, float(since_s))
    raise CorruptError(f"habits: no manners of {place[:80]}: {str(entry)[:80]}")
