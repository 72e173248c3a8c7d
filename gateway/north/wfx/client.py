"""The south side of one wfx, as the gateway asks it for its nodes (wfx's published OpenAPI 1.1.0).

Rules:

1. The credential goes to the configured server only. Bundles lie where jobs say: elsewhere than at the server they are fetched
   without the credential, and only from hosts that are configured, redirects included.
2. wfx itself knows no credentials; what stands before it may want a bearer token, a certificate, and the client's id in a header.
   The stream of events is for many clients, and has no such header.
3. Only wfx's own word (`wfx.jobNotFound`) means that a job is gone. Any other 404 or 403 comes from something in between, or from
   a wrong address, and must not withdraw what is under way.
4. All requests of one client keep a distance in time.
"""

import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, urlencode

import aiohttp

from gateway.north.in_front import refuses_certificate, words_of
from gateway.north.spacing import Spacing
from gateway.north.wfx.events import EventReader
from gateway.north.wfx.messages import (
    MAX_JOB_BYTES,
    MAX_JOBS_BYTES,
    MAX_REFUSAL_BYTES,
    MAX_STATUS_BYTES,
    Event,
    Job,
    Jobs,
    JobStatus,
    code_of,
    decode,
    encode_status,
)
from update.chunks.ranges import parse_content_range
from update.errors import NotFoundError, ProtocolError, UnauthorizedError, UnreachableError, UnsupportedError, WireError
from update.wire.download import Sink, download
from update.wire.http import PLAIN, Manner, exchange, parse_url, read_bounded, refusal, strong_etag
from update.wire.rate import Retry

MOST_JOBS: Final = 20
"""Open jobs of one client that are looked at; the oldest come first."""
LONGEST_IDS: Final = 6000
"""Characters of client ids in the address of the stream of events: what does not fit is polled for."""

_API = "/api/wfx/v1"
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_GONE = "wfx.jobNotFound"


def _nothing() -> dict[str, str]:
    """No credential."""
    return {}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the server is shown: headers, the client's id in `client_header` (empty: none), a certificate by `tls`."""

    credential: Callable[[], dict[str, str]] = _nothing
    client_header: str = ""
    tls: ssl.SSLContext | None = None

    def manner(self, plain: Manner, client: str) -> Manner:
        """`plain`, and what is shown on behalf of a client; empty: of none."""
        headers = {**plain.headers, **self.credential()}
        if self.client_header and client:
            headers[self.client_header] = client
        return replace(plain, headers=headers, tls=self.tls)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a file before it is fetched: its length, and what changes with its content, empty if unknown."""

    length: int
    validator: str


class WfxClient:
    """One server. Errors of every method: leaves of `WireError`, `EndlessDataError`, `ConfigurationError` of the credential."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        spacing: Spacing,
        shown: Shown,
        *,
        manner: Manner = PLAIN,
        artifact_hosts: frozenset[str] = frozenset(),
        tags: Sequence[str] = (),
    ) -> None:
        self._session = session
        self._server = parse_url(url)
        self._root = str(self._server).rstrip("/").removesuffix(_API) + _API
        self._spacing = spacing
        self._shown = shown
        self._manner = manner
        self._artifact_hosts = artifact_hosts
        self._tags = tuple(tags)

    async def open_jobs(self, client: str) -> tuple[Job, ...]:
        """The oldest jobs of a client that are not at their end, with their workflows and definitions."""
        wanted = {"clientId": client, "group": "OPEN", "sort": "asc", "limit": str(MOST_JOBS)}
        if self._tags:
            wanted["tag"] = ",".join(self._tags)
        jobs = decode(Jobs, await self._get(client, f"jobs?{urlencode(wanted)}", MAX_JOBS_BYTES)).content
        return tuple(job for job in jobs if job.client == client)

    async def job(self, client: str, job: str) -> Job:
        """One job; `NotFoundError` once it was deleted."""
        return decode(Job, await self._get(client, f"jobs/{quote(job, safe='')}", MAX_JOB_BYTES))

    async def set_status(self, client: str, job: str, status: JobStatus) -> JobStatus:
        """Take a step; where the job stands then. `ProtocolError` where the server has no such step."""
        body = encode_status(status.model_copy(update={"client": client}))
        path = f"jobs/{quote(job, safe='')}/status"
        return decode(JobStatus, await self._ask("PUT", client, path, MAX_STATUS_BYTES, body))

    async def events(self, clients: Sequence[str]) -> AsyncGenerator[Event]:
        """What happens to the jobs of these clients, until the stream ends; as many of them as its address can name."""
        named = _fitting(clients)
        url = f"{self._root}/jobs/events?{urlencode({'clientIds': ','.join(named)})}"
        headers = {"Accept": "text/event-stream"}
        manner = self._shown.manner(self._manner, "")
        reader = EventReader()
        await self._spacing.wait()
        async with exchange(self._session, "GET", url, manner, headers=headers, redirects=False) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                raise await self._refusal(response)
            async for piece in response.content.iter_any():
                await manner.line.received(str(response.url.host), len(piece))
                for event in reader.feed(piece):
                    yield event

    async def look(self, client: str, uri: str) -> Seen:
        """What an artifact's server says of it without sending it; `UnsupportedError` for a host that is not configured."""
        async with await self._artifact("HEAD", client, uri, {}) as response:
            self._check_host(response.url.host)
            if response.status == 200 and response.content_length is not None:
                return Seen(response.content_length, _validator(response))
            if response.status not in {200, 405, 501}:
                raise refusal(response)
        async with await self._artifact("GET", client, uri, {"Range": "bytes=0-0"}) as response:
            self._check_host(response.url.host)
            return Seen(_length(response), _validator(response))

    async def download(self, client: str, uri: str, sink: Sink, *, length: int) -> None:
        """Fetch an artifact of this length (rule 1). Errors also: `StoreError`."""
        manner = self._manner_for(client, uri)
        await self._spacing.wait()
        await download(self._session, uri, sink, length=length, manner=manner, retry=Retry(attempts=3))

    async def _artifact(
        self, method: str, client: str, uri: str, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        manner = self._manner_for(client, uri)
        await self._spacing.wait()
        return exchange(self._session, method, uri, manner, headers=headers, small=True)

    def _manner_for(self, client: str, uri: str) -> Manner:
        address = parse_url(uri)
        if address.origin() == self._server.origin():
            return self._shown.manner(self._manner, client)
        self._check_host(address.host)
        return self._manner

    def _check_host(self, host: str | None) -> None:
        if host != self._server.host and host not in self._artifact_hosts:
            raise UnsupportedError(f"the bundle lies at {host}; add that host to artifact_hosts if it belongs to the server")

    async def _get(self, client: str, path: str, max_bytes: int) -> bytes:
        return await self._ask("GET", client, path, max_bytes)

    async def _ask(self, method: str, client: str, path: str, max_bytes: int, body: bytes | None = None) -> bytes:
        manner, url = self._shown.manner(self._manner, client), f"{self._root}/{path}"
        await self._spacing.wait()
        async with exchange(
            self._session, method, url, manner, headers=_JSON, body=body, small=True, redirects=False, once=True
        ) as response:
            if response.status != 200:
                raise await self._refusal(response)
            return await read_bounded(response, max_bytes, manner)

    async def _refusal(self, response: aiohttp.ClientResponse) -> WireError:
        """Rule 3."""
        if response.status in {400, 403} and await self._refuses_us(response):
            words = "check the token, the certificate and the client ids it admits"
            return UnauthorizedError(f"{response.url} refuses us ({response.status}); {words}")
        if response.status == 404:
            code = code_of(await read_bounded(response, MAX_REFUSAL_BYTES, self._manner))
            if code == _GONE:
                return NotFoundError(f"{response.url}: there is no such job ({code})")
            return UnreachableError(f"{response.url} answers 404, and not as wfx does; check the url")
        if response.status == 200:
            return UnreachableError(f"{response.url} sends {response.content_type} and not what was asked for; check the url")
        if 300 <= response.status < 400:
            return UnreachableError(f"{response.url} leads elsewhere ({response.status}); name the server itself as url")
        return refusal(response)

    async def _refuses_us(self, response: aiohttp.ClientResponse) -> bool:
        return response.status == 403 or refuses_certificate(response.status, await words_of(response, self._manner))


def _fitting(clients: Sequence[str]) -> tuple[str, ...]:
    """The first of them, as many as an address may name."""
    named: list[str] = []
    left = LONGEST_IDS
    for client in clients:
        left -= len(client) + 1
        if left < 0:
            break
        named.append(client)
    return tuple(named)


def _validator(response: aiohttp.ClientResponse) -> str:
    return strong_etag(response) or response.headers.get("Last-Modified", "")[:100]


def _length(response: aiohttp.ClientResponse) -> int:
    """The length of the whole file, by an answer to a request for its first byte."""
    if response.status == 206:
        total = parse_content_range(response.headers.get("Content-Range", ""))[1]
    elif response.status == 200:
        total = response.content_length
    else:
        raise refusal(response)
    if total is None:
        raise ProtocolError(f"{response.url} does not say how long it is; a bundle lies where it can be asked for by ranges")
    return total
