"""Gateways in a chain: the first one's plain listener is the second one's upstream, and the union still travels once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from gateway.north.sources import HttpUpstream, Preference, TargetSource
from gateway.simulators.upstream import UpstreamServer
from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.proxy import StockContent
from gateway.south.registry import Registry
from gateway.south.relays import Relays
from gateway.south.routes import content_application, listen, make_runner
from tests.builders.relayed import index_of, info_of, make_zck
from update.chunks.ranges import Range
from update.durable import Disk
from update.store.store import Store
from update.trust.verified import TargetInfo
from update.wire.ranged import read_ranges
from update.wire.rate import Retry

METADATA = {"timestamp.json": b'{"signed": "once"}\n'}
QUICK = Retry(attempts=2, first_s=0.01)


class Listed:
    """One target of one repository, as verified metadata lists it."""

    def __init__(self, info: TargetInfo) -> None:
        self._info = info

    def unread(self) -> tuple[str, ...]:
        return ()

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        return self._info if (repository, wire_path) == (self._info.repository, self._info.wire_path) else None

    def metadata(self, repository: str, name: str) -> bytes | None:
        return METADATA.get(name) if repository == self._info.repository else None


class Chain:
    """An origin and gateways behind it, each with the one before as its upstream."""

    def __init__(self, folder: Path, zck: Path, session: aiohttp.ClientSession) -> None:
        self.info, self.session = info_of(zck), session
        self._folder = folder
        file = folder / "origin" / self.info.wire_path
        file.parent.mkdir(parents=True)
        file.write_bytes(zck.read_bytes())
        self.origin = UpstreamServer(folder / "origin")
        self.urls: list[str] = []
        self.upstreams: list[HttpUpstream] = []

    async def extend(self, stack: AsyncExitStack) -> None:
        """One gateway more."""
        upstream = HttpUpstream(self.session, self.urls[-1] if self.urls else self.origin.url, retry=QUICK)
        sources = (TargetSource(upstream, self.info, Preference([upstream])),)
        store = Store(Disk(), self._folder / f"store-{len(self.urls)}")
        relays = Relays(store.layout.sparse, Disk(), lambda _: sources, publish=store.publish, find=store.find)
        files = OpenFiles()
        stack.callback(files.close)
        stack.push_async_callback(relays.close)
        content = ContentServer(Listed(self.info), store.find, relays, files)
        stock = StockContent(Registry([self.info.repository]), content)
        runner = make_runner(content_application([*stock.peer_routes(), *stock.routes()]))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        port = await listen(runner, ["127.0.0.1"], 0, None, key="south.content")
        self.urls.append(f"http://127.0.0.1:{port}/repositories/{self.info.repository}")
        self.upstreams.append(upstream)

    async def read(self, ranges: list[Range]) -> dict[int, bytes]:
        """What a client of the last gateway gets."""
        url = f"{self.urls[-1]}/{self.info.wire_path}"
        return {offset: piece async for offset, piece in read_ranges(self.session, url, ranges, retry=QUICK)}


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture
async def chain(tmp_path: Path, zck: Path) -> AsyncIterator[Chain]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        made = Chain(tmp_path, zck, session)
        await stack.enter_async_context(made.origin)
        await made.extend(stack)
        await made.extend(stack)
        yield made


async def test_through_two_gateways_the_union_travels_once(chain: Chain, zck: Path) -> None:
    content, header, dice = zck.read_bytes(), index_of(zck).header, random.Random(3)
    chunks = [Range(chunk.start, chunk.length) for chunk in list(header)[1:]]

    async def client(wanted: list[Range]) -> None:
        for offset, piece in (await chain.read(wanted)).items():
            assert content[offset : offset + len(piece)] == piece

    wishes = [sorted(dice.sample(chunks, 12)) for _ in range(10)]
    async with asyncio.timeout(60):
        await asyncio.gather(*map(client, wishes))
    union = sum(chunk.length for chunk in {chunk for wish in wishes for chunk in wish})
    sent = chain.origin.traffic
    assert sent.repeated_bytes() == 0
    assert sum(part.length for parts in sent.bodies.values() for part in parts) == union + header.header_size
    assert chain.upstreams[1]._peer.limit() > 1, "a gateway answers several ranges, and its peer knows it"


async def test_a_gateway_without_its_upstream_still_gives_its_peer_what_it_has(chain: Chain, zck: Path) -> None:
    content, header = zck.read_bytes(), index_of(zck).header
    held = [Range(header[number].start, header[number].length) for number in (3, 7, 11)]
    url = f"{chain.urls[0]}/{chain.info.wire_path}"
    async for _ in read_ranges(chain.session, url, held, retry=QUICK):
        pass
    await chain.origin.stop()
    async with asyncio.timeout(60):
        found = await chain.read(held)
    assert b"".join(found[at] for at in sorted(found)) == b"".join(content[span.start : span.end] for span in held)


async def test_metadata_is_there_for_peers_too(chain: Chain) -> None:
    assert (
        await HttpUpstream(chain.session, chain.urls[0]).fetch("metadata/timestamp.json", max_bytes=100)
        == METADATA["timestamp.json"]
    )


@pytest.mark.parametrize("host", ["plant", "vendor.example"])
async def test_peers_get_no_proxy(chain: Chain, host: str) -> None:
    """A whole URL in the request line means that URL, whatever its path looks like."""
    port = int(chain.urls[0].split("/")[2].partition(":")[2])
    for path in ("metadata/timestamp.json", chain.info.wire_path):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET http://{host}/repositories/plant/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        writer.close()
        await writer.wait_closed()
    assert chain.origin.traffic.requests == 0
