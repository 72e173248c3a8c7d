"""The node's connection to its gateway: found when first needed, enrolled at first contact, found again when it breaks.

Everything a node says to a gateway goes through one `Link`: a session whose TLS context accepts only this site's gateways
(`update.wire.tls`) and shows this node's certificate. The key of that certificate is made here and never leaves the node.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from node_agent.config import PatchesSection
from node_agent.discovery import Discovery
from update.chunks.pair import PatchOffer
from update.digest import Digest
from update.durable import Disk
from update.errors import ConfigurationError, PeerIdentityError, SignatureError, SlowError, UnreachableError
from update.store.staging import Staged
from update.trust.client import Fetcher
from update.trust.signers import load_private_key
from update.wire.authority import make_csr
from update.wire.boot_proof import BootProof
from update.wire.ddi_client import DdiClient
from update.wire.download import download
from update.wire.est import CACERTS_PATH, enroll
from update.wire.http import HttpFetcher, Manner, exchange, read_bounded
from update.wire.pairs import find_patch, patch_url
from update.wire.ranged import read_ranges
from update.wire.rate import Patience, Retry
from update.wire.tls import GATEWAY_IDENTITY, client_context

_LOG = logging.getLogger(__name__)

MANNER = Manner(patience=Patience(connect_s=10.0), server_hostname=GATEWAY_IDENTITY)
_MAX_TOKEN_BYTES = 1024
_MAX_CA_BYTES = 64 << 10
_CONNECTIONS = 4
_FEW = Retry(attempts=2)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who this node is to the gateway: files, of which key and certificate are made at first contact with the token."""

    node: str
    site_ca: Path
    key: Path
    certificate: Path
    token: Path


class Link:
    """One gateway at a time. Use as `async with link:`; nothing is connected before it is needed."""

    def __init__(self, discovery: Discovery, credentials: Credentials, disk: Disk) -> None:
        self._discovery = discovery
        self._credentials = credentials
        self._disk = disk
        self._session: aiohttp.ClientSession | None = None
        self._url = ""
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        session, self._session, self._url = self._session, None, ""
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
        """Session and base URL of a gateway of this site. A `WireError` inside makes the next use look for it again.

        Errors: those of `Discovery.find`, `UnauthorizedError` of the enrolment, `ConfigurationError` for missing files.
        """
        async with self._lock:
            session, url = await self._connect()
        try:
            yield session, url
        except (UnreachableError, SlowError, PeerIdentityError):
            self._url = ""
            raise

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[DdiClient]:
        """The DDI resource of this node."""
        async with self.connected() as (session, url):
            yield DdiClient(session, url, self._credentials.node, manner=MANNER)

    def prove(self, proof: BootProof) -> str:
        """Sign what runs here with the key of this node's certificate. `SignatureError` for a key that cannot."""
        key = load_private_key(self._credentials.key)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SignatureError(f"{self._credentials.key} is no elliptic curve key; enrol this node again")
        return proof.sign(key)

    async def reach(self) -> None:
        """Ask the gateway for something small: is it there, and is it ours? Errors: `WireError`."""
        async with self.connected() as (session, url):
            await _ask(session, url)

    def fetcher(self, repository: str) -> Fetcher:
        """The metadata of `repository`, as the gateway mirrors it."""
        return _Metadata(self, repository)

    async def download(self, repository: str, path: str, staged: Staged, progress: Callable[[int, int], None]) -> None:
        """Continue a bundle until it is whole."""
        async with self.connected() as (session, url):
            await download(
                session,
                f"{url}/repositories/{repository}/{path}",
                staged,
                length=staged.length,
                manner=MANNER,
                progress=lambda position: progress(position, staged.length),
            )

    async def read_ranges(
        self, repository: str, path: str, ranges: Sequence[tuple[int, int]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of a file, as the driver asks for them."""
        async with self.connected() as (session, url):
            pieces = read_ranges(session, f"{url}/repositories/{repository}/{path}", ranges, manner=MANNER)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        """What the gateway offers instead of the chunks of a file."""
        async with self.connected() as (session, url):
            address = patch_url(f"{url}/repositories/{repository}", path, base=base, memory_bytes=limits.memory_bytes)
            return await find_patch(session, address, wait_s=limits.wait_s, manner=MANNER)

    async def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        """The patch that was offered; one that breaks off is continued, not for ever."""
        async with self.connected() as (session, url):
            address = patch_url(f"{url}/repositories/{repository}", path, base=base, memory_bytes=limits.memory_bytes)
            reading = read_ranges(session, address, [(0, offer.size)], size=offer.size, manner=MANNER, retry=_FEW)
            async with aclosing(reading) as pieces:
                async for _, piece in pieces:
                    yield piece

    async def _connect(self) -> tuple[aiohttp.ClientSession, str]:
        """The session is kept when the gateway moves: others may be in the middle of using it."""
        if self._session is None and not self._credentials.certificate.exists():
            async with self._open(enrolled=False) as stranger:
                await self._enroll(stranger, await self._discovery.find(lambda candidate: _ask(stranger, candidate)))
        session = self._session = self._session or self._open(enrolled=True)
        if not self._url:
            self._url = await self._discovery.find(lambda candidate: _ask(session, candidate))
            _LOG.info("connected to %s", self._url)
        return session, self._url

    def _open(self, *, enrolled: bool) -> aiohttp.ClientSession:
        own = self._credentials
        context = client_context(
            own.site_ca, certificate=own.certificate if enrolled else None, key=own.key if enrolled else None
        )
        connector = aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        )

    async def _enroll(self, session: aiohttp.ClientSession, url: str) -> None:
        """Exchange the one-time token for a certificate over a key that was made here."""
        own = self._credentials
        token = _read_token(own.token)
        self._disk.make_folder(own.key.parent, mode=0o700)
        request = await asyncio.to_thread(make_csr, self._disk, own.key, own.node)
        chain = await enroll(session, url, own.node, token, request)
        self._disk.write_file(own.certificate, b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        _LOG.info("enrolled as %s at %s", own.node, url)


class _Metadata:
    """`Fetcher` of one repository through the link."""

    def __init__(self, link: Link, repository: str) -> None:
        self._link = link
        self._repository = repository

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        async with self._link.connected() as (session, url):
            fetcher = HttpFetcher(session, f"{url}/repositories/{self._repository}", MANNER)
            return await fetcher.fetch(path, max_bytes=max_bytes)


async def _ask(session: aiohttp.ClientSession, url: str) -> None:
    """Whoever answers this has shown a gateway's certificate of this site; what he answers does not matter."""
    async with exchange(session, "GET", url + CACERTS_PATH, MANNER, small=True, redirects=False) as response:
        await read_bounded(response, _MAX_CA_BYTES, MANNER)


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"this node is not enrolled yet, and its one-time token cannot be read from {path}; let the gateway's operator "
            "issue one (`fieldrelay gateway token NODE`) and put it there"
        ) from error
