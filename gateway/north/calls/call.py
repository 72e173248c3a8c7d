"""One stream that is kept open: each event that says `look` has the upstreams asked now.

1. An event is a hint: `event: look`, or JSON data whose `type` is `look` (what relays of webhooks send as `message`). Its
   `repository`, where it names one, narrows the look; nothing else in it counts.
2. The stream is opened again when it ends, ever more rarely while it cannot be had, never at the same time as others (jitter),
   and with `Last-Event-ID`, so that what was said meanwhile is said again. How long its server wants it to wait (`retry`) counts.
3. A stream that is silent for too long is dead, whatever the connection says. When one was had again after it had failed, it is
   looked once: what was missed may be unknown to its server too.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from gateway.north.calls.stream import StreamEvent, StreamReader
from update.errors import FieldrelayError, ProtocolError, SlowError, UnreachableError
from update.wire.http import Manner, exchange, refusal

_LOG = logging.getLogger(__name__)
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 300.0
_LOOK: Final = "look"


class _Looking(Protocol):
    def want(self, repositories: Collection[str], *, assigners: bool) -> None:
        """Look soon."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """Where a stream is, what is shown there, and when it counts as dead. `manner` gives what is shown at each time."""

    name: str
    url: str
    manner: Callable[[], Manner]
    idle_s: float


class Call:
    """Listens for ever. `repositories` are what an event has looked at."""

    def __init__(
        self,
        line: Line,
        session: aiohttp.ClientSession,
        looking: _Looking,
        repositories: Collection[str],
        *,
        chance: Callable[[], float] = random.random,
        first_s: float = _FIRST_S,
    ) -> None:
        self._line = line
        self._session = session
        self._looking = looking
        self._repositories = tuple(repositories)
        self._chance = chance
        self._first_s = first_s
        self._last_id: str | None = None
        self._retry_s = 0.0
        self._failures = 0

    async def run(self) -> None:
        """For ever; whatever cannot be had now is tried again."""
        while True:
            try:
                await self.listen()
                _LOG.debug("call %s: the stream ended", self._line.name)
            except FieldrelayError as error:
                level = logging.WARNING if self._failures == 0 else logging.DEBUG
                _LOG.log(level, "call %s: %s (%s)", self._line.name, error, error.code)
            self._failures += 1
            await asyncio.sleep(self.pause_s())

    def pause_s(self) -> float:
        """How long to wait before the stream is asked for again (rule 2)."""
        longer = min(_LONGEST_S, self._first_s * 2.0 ** min(self._failures - 1, 30))
        return max(self._retry_s, longer) * (0.5 + self._chance() / 2)

    async def listen(self) -> None:
        """Until the stream ends. Errors: `WireError`, `EndlessDataError`, `ConfigurationError`."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        reader = StreamReader(self._last_id)
        asking = exchange(self._session, "GET", self._line.url, self._line.manner(), headers=headers, redirects=False)
        async with asking as response:
            if response.status != 200:
                raise refusal(response)
            if response.content_type != "text/event-stream":
                raise ProtocolError(f"{self._line.url} is no stream of events: {response.content_type[:80]!r}")
            _LOG.info("call %s: listening", self._line.name)
            while piece := await self._piece(response):
                self._came(reader.feed(piece))
                self._last_id, self._retry_s = reader.last_id, min(_LONGEST_S, reader.retry_s or 0.0)

    async def _piece(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            async with asyncio.timeout(self._line.idle_s):
                return await response.content.readany()
        except TimeoutError as error:
            raise SlowError(f"{self._line.url} was silent for {self._line.idle_s:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UnreachableError(f"{self._line.url} broke off ({type(error).__name__})") from error

    def _came(self, events: Collection[StreamEvent]) -> None:
        if self._failures:  # rule 3
            self._failures = 0
            self._looking.want(self._repositories, assigners=True)
        for event in events:
            if (named := meant(event)) is not None:
                own = self._repositories if not named else [each for each in self._repositories if each == named]
                self._looking.want(own, assigners=not named)


def meant(event: StreamEvent) -> str | None:
    """The repository that an event says to look at, empty: all of them; None where it says nothing of that kind (rule 1)."""
    try:
        data = json.loads(event.data)
    except (ValueError, RecursionError):
        data = None
    named = data if isinstance(data, dict) else {}
    if event.kind != _LOOK and named.get("type") != _LOOK:
        return None
    repository = named.get("repository", "")
    return repository if isinstance(repository, str) else ""
