"""Finding the gateway: a fixed URL, the last good one, or whoever announces itself in the LAN. Trust is decided by TLS.

Anybody can announce a gateway by multicast DNS, and addresses move. So every candidate is *tried*: it must present a
certificate of the site's CA for `GATEWAY_IDENTITY`. One that cannot is logged with its code and costs one refused connection;
then the next is tried. The last good one is remembered on disk and tried first, so that a node finds its gateway again
while multicast is down. It is only an address: it is tried like any other.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from update.errors import CorruptError, PeerIdentityError, UnreachableError, WireError
from update.store.journal import Journal
from update.wire.service import Candidate, browse

_LOG = logging.getLogger(__name__)
_MAX_URL_CHARACTERS = 300

Try = Callable[[str], Awaitable[None]]
"""Connect to a base URL and check who answers. Errors: `PeerIdentityError`, any other `WireError`."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look: `url` alone if there is one, else on `interfaces` for `browse_s` seconds."""

    url: str = ""
    interfaces: tuple[str, ...] = ()
    browse_s: float = 10.0


class Discovery:
    """Finds one gateway at a time; `remembered` keeps the last good one."""

    def __init__(self, search: Search, remembered: Journal) -> None:
        self._search = search
        self._remembered = remembered

    async def find(self, attempt: Try) -> str:
        """The base URL of the first candidate that passes `attempt`; `UnreachableError` or `PeerIdentityError` if none does."""
        last: WireError | None = None
        tried: set[str] = set()
        async for url in self._candidates():
            if url in tried:
                continue
            tried.add(url)
            try:
                await attempt(url)
            except PeerIdentityError as error:
                _LOG.warning("%s is refused: %s (%s)", url, error, error.code)
                last = error
            except WireError as error:
                _LOG.info("%s cannot be used: %s (%s)", url, error, error.code)
                last = last if isinstance(last, PeerIdentityError) else error
            else:
                self._remember(url)
                return url
        raise self._failure(last, len(tried))

    async def _candidates(self) -> AsyncIterator[str]:
        if self._search.url:
            yield self._search.url
            return
        if known := self._recall():
            yield known
        async with browse(interfaces=self._search.interfaces, wait_s=self._search.browse_s) as found:
            async for candidate in found:
                for url in urls_of(candidate):
                    yield url

    def _failure(self, last: WireError | None, tried: int) -> WireError:
        where = f"at {self._search.url}" if self._search.url else f"on {', '.join(self._search.interfaces)}"
        if isinstance(last, PeerIdentityError):
            return PeerIdentityError(f"no gateway of this site answers {where}: {tried} tried, the last refused because {last}")
        return UnreachableError(f"no gateway answers {where}: {tried} tried" + (f", the last: {last}" if last else ""))

    def _recall(self) -> str:
        try:
            known = (self._remembered.read() or {}).get("url", "")
        except CorruptError as error:
            _LOG.warning("the last gateway is forgotten: %s", error)
            return ""
        return known if isinstance(known, str) and known.startswith("https://") and len(known) <= _MAX_URL_CHARACTERS else ""

    def _remember(self, url: str) -> None:
        if not self._search.url and url != self._recall():
            self._remembered.write({"url": url})


def urls_of(candidate: Candidate) -> Sequence[str]:
    """The base URLs worth trying of one candidate; what it says of itself beyond addresses and port is not used."""
    return [f"https://{address}:{candidate.port}" for address in candidate.addresses]
