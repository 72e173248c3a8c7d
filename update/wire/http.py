"""The client side of HTTP: one exchange with its limits and named errors, and the fetcher of TUF metadata.

Rules:

1. A limit stands before every read: bytes (`EndlessDataError`), waiting time and rate (`SlowError`). A Content-Length is
   never trusted: it can only make a refusal come sooner.
2. Content is asked for as it is: an answer with a Content-Encoding is refused, since it would be other bytes than those
   that were signed, and a bomb besides.
3. 404 and 403 mean that the repository does not have it (TUF 1.0, section 5.3.3 leaves the reason open); 401 and 407 that
   our credential is refused; 408, 429 and 5xx that it may work later.
4. From https no redirect leads back to http.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import aiohttp
import yarl

from update.errors import (
    EndlessDataError,
    NotFoundError,
    PeerIdentityError,
    ProtocolError,
    SlowError,
    UnauthorizedError,
    UnreachableError,
    WireError,
)
from update.wire.line import FREE, Line
from update.wire.rate import Patience, RateGuard

_MAX_REDIRECTS = 5
_LATER = frozenset({408, 425, 429})
_WIRE_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]+", re.ASCII)
_FOREIGN = (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)
_NETWORK = (aiohttp.ClientError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Manner:
    """How requests to one peer are made; `server_hostname` is the name that its certificate must carry, if not the URL's.

    `line` is what they share with the requests to others. `tls` takes the place of the session's own where a certificate of
    ours is shown.
    """

    patience: Patience = field(default_factory=Patience)
    headers: Mapping[str, str] = field(default_factory=dict)
    server_hostname: str | None = None
    line: Line = FREE
    tls: ssl.SSLContext | None = None


PLAIN = Manner()


class HttpFetcher:
    """A `Fetcher` over HTTP: the files of one repository below `base_url`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, manner: Manner = PLAIN) -> None:
        self._session = session
        self._base_url = parse_url(base_url)
        self._manner = manner

    def url(self, path: str) -> str:
        """The URL of a percent-encoded path relative to the repository; `ProtocolError` for one that would leave it."""
        parts = path.split("/")
        if not _WIRE_PATH.fullmatch(path) or not all(parts) or not {".", ".."}.isdisjoint(parts):
            raise ProtocolError(f"not a path within a repository: {path[:120]!r}")
        return f"{str(self._base_url).rstrip('/')}/{path}"

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """The file at `path`, at most `max_bytes` of it. Errors: `EndlessDataError` above that, leaves of `WireError`."""
        async with exchange(self._session, "GET", self.url(path), self._manner, small=True) as response:
            if response.status != 200:
                raise refusal(response)
            return await read_bounded(response, max_bytes, self._manner)


@asynccontextmanager
async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    manner: Manner = PLAIN,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = None,
    small: bool = False,
    redirects: bool = True,
    once: bool = False,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """One request; the body of the answer is not read. Failures inside the block are translated too.

    `small`: the answer must begin within the deadline of small answers. `once`: a `body` that was sent is not sent again by
    itself where the connection breaks, though the method would allow it. Errors: leaves of `WireError`.
    """
    patience = manner.patience
    address = parse_url(url)
    async with manner.line.connection(small=small):
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(min(patience.answer_s, patience.deadline_s) if small else patience.answer_s):
                response = await session.request(
                    method,
                    address,
                    headers={"Accept-Encoding": "identity", **_length(body), **manner.headers, **headers},
                    data=_sent_once(body) if once and body is not None else body,
                    allow_redirects=redirects,
                    max_redirects=_MAX_REDIRECTS,
                    server_hostname=manner.server_hostname,
                    ssl=True if manner.tls is None else manner.tls,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_s),
                )
            _check_answer(address, response)
            yield response
        except _NETWORK as error:
            raise _named(error, url) from error
        except TimeoutError as error:
            raise SlowError(f"{url} did not begin to answer in time; try again or choose another source") from error
        finally:
            if response is not None:
                response.close()


def _length(body: bytes | None) -> Mapping[str, str]:
    return {} if body is None else {"Content-Length": str(len(body))}


async def _sent_once(body: bytes) -> AsyncIterator[bytes]:
    """A body that aiohttp cannot rewind: it repeats idempotent requests on connections that it kept (RFC 9112, 9.3.1)."""
    yield body


async def pieces(response: aiohttp.ClientResponse, guard: RateGuard, line: Line = FREE) -> AsyncIterator[bytes]:
    """The body as it comes, under the guard and as fast as our side of the line may; within `exchange`."""
    source = f"{response.url.host}{response.url.raw_path}"
    while True:
        allowance_s, started_s = guard.allowance_s(), time.monotonic()
        try:
            async with asyncio.timeout(allowance_s):
                piece = await response.content.readany()
        except TimeoutError:
            guard.note(allowance_s, 0)
            continue
        if not piece:
            return
        guard.note(time.monotonic() - started_s, len(piece))
        await line.received(source, len(piece))
        yield piece


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int, manner: Manner = PLAIN) -> bytes:
    """A small body completely; `EndlessDataError` above `max_bytes`, found before and while reading."""
    announced = response.content_length
    if announced is not None and announced > max_bytes:
        raise EndlessDataError(f"{response.url} announces {announced} bytes, at most {max_bytes} are accepted")
    body = bytearray()
    guard = RateGuard(manner.patience, str(response.url), total_s=manner.patience.deadline_s)
    async for piece in pieces(response, guard, manner.line):
        if len(body) + len(piece) > max_bytes:
            raise EndlessDataError(f"{response.url} sends more than the {max_bytes} bytes that are accepted")
        body += piece
    return bytes(body)


def refusal(response: aiohttp.ClientResponse) -> WireError:
    """The named error for a status that is no success (rule 3)."""
    status, url = response.status, response.url
    if status in {403, 404, 410}:
        return NotFoundError(f"{url} is not there ({status})")
    if status in {401, 407}:
        return UnauthorizedError(f"{url} refuses our credential ({status}); check token, certificate or proxy password")
    if status >= 500 or status in _LATER:
        return UnreachableError(f"{url} cannot answer now ({status}); try again later")
    return ProtocolError(f"{url} answered with status {status}, which is not expected here")


def strong_etag(response: aiohttp.ClientResponse) -> str | None:
    """The ETag if it identifies bytes; a weak one does not (RFC 9110, section 8.8.3)."""
    etag = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag) else None


def parse_url(url: str) -> yarl.URL:
    """An absolute http or https URL, taken as encoded already; `ProtocolError` otherwise."""
    try:
        address = yarl.URL(url, encoded=True)
        usable = address.scheme in {"http", "https"} and bool(address.host) and (address.port or 0) > 0
    except ValueError as error:
        raise ProtocolError(f"not a URL: {url[:200]!r}") from error
    if not usable or address.fragment or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise ProtocolError(f"not an http or https URL: {url[:200]!r}")
    return address


def _check_answer(asked: yarl.URL, response: aiohttp.ClientResponse) -> None:
    if asked.scheme == "https" and response.url.scheme != "https":
        raise ProtocolError(f"{asked} redirects to {response.url}, which is not protected")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise ProtocolError(f"{asked} answers in the encoding {encoding[:40]!r} that was not asked for")


def _named(error: Exception, url: str) -> WireError:
    """The leaf for a failure of aiohttp or of the connection."""
    cause = getattr(error, "os_error", None) or error.__cause__ or error
    if isinstance(cause, ssl.SSLError) and "ALERT" in str(cause).upper():
        return UnauthorizedError(f"{url} refuses our certificate or TLS version ({cause})")
    if isinstance(cause, (ssl.SSLError, ssl.CertificateError)) or isinstance(error, _FOREIGN):
        return PeerIdentityError(f"{url}: its certificate is not one that is trusted here ({error})")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _of_proxy(error, url)
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ProtocolError(f"{url} answers with something that is not HTTP, or redirects nowhere ({type(error).__name__})")
    return UnreachableError(f"{url} cannot be reached or broke off ({type(error).__name__}: {error})"[:500])


def _of_proxy(error: aiohttp.ClientHttpProxyError, url: str) -> WireError:
    if error.status in {401, 403, 407}:
        return UnauthorizedError(f"the proxy refuses {url} ({error.status}); check its user and password")
    return UnreachableError(f"the proxy cannot reach {url} ({error.status})")
