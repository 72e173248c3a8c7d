"""Bodies that no target carries come from where their URL says, where that is allowed; the header decides what is right."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.bodies import AWAY_S, Bodies, SignedOrigins, pseudonym
from gateway.south.origins import RangeSource
from gateway.south.registry import Registry, known_by_header
from gateway.south.relays import Relays
from gateway.south.signed_urls import authority_of_key, url_key
from tests.builders.delta_bundle import bundle_info, verified_delta
from tests.builders.relay_site import take
from tests.builders.relayed import MemorySource, body_of, index_of, info_of, make_zck
from tests.builders.stock_listener import FOREIGN, Listener
from update.durable import Disk
from update.errors import ChunkError, UnreachableError, WireError
from update.trust.verified import TargetInfo, VerifiedTarget
from update.wire.rate import Patience, Retry

PATH = "/os/image.zck"


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"), blocks=200)


def registered(folder: Path, zck: Path, *urls: str, allowed: Sequence[str], listed: Sequence[TargetInfo] = ()) -> Registry:
    """A registry that one bundle with these URLs made, for repositories `plant` and `other`."""
    registry = Registry(["plant", "other"], fetched={"plant": allowed})
    bundle = verified_delta(folder, zck, *urls)
    info = bundle_info(bundle.file)
    registry.learn(info, bundle)
    registry.shown("plant", [info, *listed])
    return registry


@dataclass
class Site:
    """Relays whose bodies come from one server, by the URL that a bundle signed."""

    server: UpstreamServer
    url: str
    body: TargetInfo
    origins: SignedOrigins
    relays: Relays
    now_s: list[float]
    published: list[TargetInfo]
    zck: Path

    async def read(self) -> bytes:
        """All of the body, as a client gets it."""
        span = body_of(self.zck)
        lease = await self.relays.lend(self.body, [span])
        assert lease is not None
        return take(lease, span)


@pytest.fixture
async def site(tmp_path: Path, zck: Path) -> AsyncIterator[Site]:
    root = tmp_path / "root" / "os"
    root.mkdir(parents=True)
    (root / "image.zck").write_bytes(zck.read_bytes())
    now_s, published = [1000.0], list[TargetInfo]()

    def publish(verified: VerifiedTarget) -> Path:
        published.append(verified.info)
        return verified.file

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(UpstreamServer(root.parent))
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        url = f"{server.url}{PATH}"
        registry = registered(tmp_path, zck, url, allowed=[authority_of_key(url)])
        body = registry.find(url)
        assert body is not None
        patience, retry = Patience(connect_s=2.0), Retry(attempts=1)
        origins = SignedOrigins(registry, session, name="me", patience=patience, retry=retry, clock=lambda: now_s[0])
        relays = Relays(
            tmp_path / "sparse",
            Disk(),
            Bodies([origins]).sources_of,
            publish=publish,
            find=lambda _info: None,
            gather_s=0.0,
        )
        (tmp_path / "sparse").mkdir()
        stack.push_async_callback(relays.close)
        yield Site(server, url, body, origins, relays, now_s, published, zck)


async def test_a_body_comes_from_where_its_url_says_and_stays(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    span = body_of(site.zck)
    assert await site.read() == site.zck.read_bytes()[span.start :]
    await site.server.stop()
    await site.relays.settle()
    assert await site.read() == site.zck.read_bytes()[span.start :]
    assert (site.published, "was not published" in caplog.text) == ([], False), "its digest is not that of all its bytes"


async def test_a_server_that_sends_other_bytes_serves_nobody_and_is_away_for_a_while(site: Site) -> None:
    site.server.faults = Faults(flip_byte=True)
    with pytest.raises((WireError, ChunkError)):
        await site.read()
    assert site.origins.reachable(site.body) == ()
    site.now_s[0] += AWAY_S
    assert site.origins.reachable(site.body) == (site.url,)
    site.server.faults = Faults()
    await site.read()
    assert site.origins.reachable(site.body) == (site.url,)


async def test_a_server_that_is_gone_is_away_until_it_answers(site: Site) -> None:
    await site.server.stop()
    with pytest.raises(UnreachableError):
        await site.read()
    assert site.origins.reachable(site.body) == ()
    await site.server.start()
    await site.read()
    assert site.origins.reachable(site.body) == (site.url,)


def test_only_where_the_repository_allows_the_host_there_is_a_body(tmp_path: Path, zck: Path) -> None:
    urls = ("http://cdn.example:8081/a.zck", "https://CDN.example:443/b.zck?t=1", "http://elsewhere.example/a.zck")
    registry = registered(tmp_path, zck, *urls, allowed=["cdn.example:8081", "cdn.example"])
    found = [registry.find(url_key(url) or "") for url in urls]
    assert [info is not None for info in found] == [True, True, False]
    body = found[0]
    assert body is not None
    header = index_of(zck)
    assert (body.sha256, body.length) == (header.sha256, header.header.total_length)
    assert body.custom.zck_header is not None
    assert known_by_header(body)
    assert set(registry.places_of(body)) == {"http://cdn.example:8081/a.zck", "https://cdn.example/b.zck?t=1"}
    registry.shown("plant", [])
    assert registry.places_of(body) == ()


def test_one_repository_allows_nothing_for_another(tmp_path: Path, zck: Path) -> None:
    registry = Registry(["plant", "other"], fetched={"plant": ["cdn.example"]})
    bundle = verified_delta(tmp_path, zck, "http://cdn.example/a.zck")
    info = bundle_info(bundle.file, "other")
    registry.learn(info, bundle)
    registry.shown("other", [info])
    assert len(registry) == 0


def test_a_target_that_carries_the_body_comes_first(tmp_path: Path, zck: Path) -> None:
    url = "http://cdn.example/a.zck"
    registry = registered(tmp_path, zck, url, allowed=["cdn.example"], listed=[info_of(zck)])
    found = registry.find(url)
    assert found == info_of(zck)
    assert not known_by_header(info_of(zck))
    assert registry.places_of(info_of(zck)) == ()


class Place:
    """Another source of bodies, such as a stick."""

    def __init__(self, *names: str) -> None:
        self.sources = [MemorySource(name.encode()) for name in names]
        self._names = names

    def sources_of(self, _info: TargetInfo) -> Sequence[RangeSource]:
        return self.sources

    def reachable(self, _info: TargetInfo) -> Sequence[str]:
        return self._names


def test_places_are_asked_in_their_order(zck: Path) -> None:
    first, second = Place("wan"), Place("stick", "shelf")
    both = Bodies([first, second])
    assert both.reachable(info_of(zck)) == ("wan", "stick", "shelf")
    assert both.sources_of(info_of(zck)) == (*first.sources, *second.sources)


async def test_a_request_that_leads_back_to_its_own_gateway_is_refused(tmp_path: Path, zck: Path) -> None:
    listener = Listener(tmp_path, zck, name="fieldrelay-1")
    runner = await listener.start()
    try:
        for via, status in (("1.1 fieldrelay-2", 206), ("1.0 a, 1.1 fieldrelay-1", 404), ("1.1 fieldrelay-1", 404)):
            assert (await listener.ask(FOREIGN, "Range: bytes=0-9", f"Via: {via}")).status == status
    finally:
        await runner.cleanup()
        await listener.site.relays.close()
        listener.files.close()
    assert pseudonym() != pseudonym()


async def test_every_request_says_from_whom_it_comes(tmp_path: Path, zck: Path) -> None:
    said: list[str] = []

    async def note(request: aiohttp.web.Request) -> aiohttp.web.Response:
        said.append(request.headers.get("Via", ""))
        raise aiohttp.web.HTTPNotFound

    application = aiohttp.web.Application()
    application.router.add_get("/{path:.*}", note)
    runner = aiohttp.web.AppRunner(application)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/a.zck"
    registry = registered(tmp_path, zck, url, allowed=[authority_of_key(url)])
    body = registry.find(url)
    assert body is not None
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        (source,) = SignedOrigins(registry, session, name="me").sources_of(body)
        with pytest.raises(WireError):
            _ = [piece async for piece in source.read_ranges([body_of(zck)])]
    await runner.cleanup()
    assert said == ["1.1 me"]
