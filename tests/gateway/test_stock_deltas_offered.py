"""The whole gateway towards a stock node: a delta while its chunks can be had, else the whole bundle; a body from its URL."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.app import Listening, run
from gateway.config import ContentSection, GatewayConfig, StateFolder, load_config
from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest, TokenRequest
from gateway.setup import Wishes, set_up
from gateway.simulators.upstream import UpstreamServer
from tests.builders.bundles import describe, image, signed
from tests.builders.delta_bundle import delta_bundle
from tests.builders.keys import make_pki
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk
from update.identity import Hardware
from update.wire.attributes import NodeFacts
from update.wire.authority import make_csr, write_certificate
from update.wire.est import enroll
from update.wire.tls import GATEWAY_IDENTITY, client_context

URL = "http://cdn.vendor.example/image.zck"
STOCK = {"User-Agent": "libcurl-agent/1.0"}
BOARD = {"hwIds": ["board:1"], "version": "2"}


def now() -> datetime:
    return datetime.now(UTC)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def zck(short: Path) -> Path:
    return make_zck(short, blocks=60)


@dataclass
class Site:
    """A gateway that is set up, and the folder of its upstream."""

    folder: Path
    config: GatewayConfig

    @property
    def operator(self) -> ControlClient:
        return ControlClient(self.config.control.socket)

    @asynccontextmanager
    async def running(self, **repository: object) -> AsyncIterator[Listening]:
        """The gateway in this process; `repository`: keys of its section."""
        (section,) = self.config.repository
        config = replace(self.config, repository=(replace(section, **repository),))  # type: ignore[arg-type]  # keys by name
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(config, Disk(), now=now, stop=stop, ready=ready.set_result))
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield await ready
        finally:
            stop.set()
            await task

    async def node(self, listening: Listening, stack: AsyncExitStack) -> aiohttp.ClientSession:
        """A stock node that has a certificate, and has said what it is."""
        token = (await self.operator.token(TokenRequest(valid_s=60, node="n1"))).token
        ca, key, certificate = StateFolder(self.config.gateway.state).authority[0], self.folder / "key", self.folder / "crt"
        url = f"https://127.0.0.1:{listening.port}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context(ca))) as stranger:
            issued = await enroll(stranger, url, "n1", token, make_csr(Disk(), key, "n1"))
        write_certificate(Disk(), certificate, issued[0])
        connector = aiohttp.TCPConnector(ssl=client_context(ca, certificate=certificate, key=key))
        session = await stack.enter_async_context(aiohttp.ClientSession(url, connector=connector, headers=STOCK))
        await links(session)
        facts = NodeFacts(Hardware.parse("board:1"), "1", None, "a").attributes()
        body = {"mode": "replace", "data": facts}
        place = "/DEFAULT/controller/v1/n1/configData"
        async with session.put(place, json=body, server_hostname=GATEWAY_IDENTITY) as response:
            assert response.status == 200, await response.text()
        return session

    async def ask_plainly(self, url: str, span: str) -> tuple[int, bytes]:
        """The plain listener, as a proxy."""
        proxy = f"http://127.0.0.1:{self.config.south.content.port}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, proxy=proxy, headers={"Range": f"bytes={span}"}) as response,
        ):
            return response.status, await response.read()


async def links(session: aiohttp.ClientSession) -> dict[str, Any]:  # Any: hawkBit's own form
    async with session.get("/DEFAULT/controller/v1/n1", server_hostname=GATEWAY_IDENTITY) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = (await response.json())["_links"]
        return found


async def offered(session: aiohttp.ClientSession) -> str | None:
    """The file that the node is told to install."""
    link = (await links(session)).get("deploymentBase")
    if link is None:
        return None
    async with session.get(link["href"], server_hostname=GATEWAY_IDENTITY) as response:
        assert response.status == 200, await response.text()
        document = await response.json()
    (chunk,) = document["deployment"]["chunks"]
    (artifact,) = chunk["artifacts"]
    return str(artifact["filename"])


async def set_up_site(short: Path, builder: RepositoryBuilder) -> Site:
    builder.publish()
    builder.write_to(short / "upstream")
    (short / "root.json").write_bytes(builder.root_bytes)
    (short / "anchors.pem").write_bytes(make_pki().anchors_pem)
    wishes = Wishes(short / "gateway.toml", "gw", short / "state", short / "s", free_port())
    await set_up(wishes, Disk(), now())
    with wishes.file.open("a") as file:
        file.write(
            '\n[[repository]]\nname = "plant"\nroot = "root.json"\nupstreams = ["upstream"]\ncms_roots = ["anchors.pem"]\n'
        )
    loaded = load_config(wishes.file)
    content = ContentSection(enabled=True, addresses=("127.0.0.1",), port=free_port())
    south = replace(loaded.south, addresses=("127.0.0.1",), interfaces=(), content=content)
    return Site(short, replace(loaded, south=south))


async def test_a_stock_node_gets_the_delta_while_its_chunks_can_be_had(short: Path, zck: Path) -> None:
    builder = RepositoryBuilder(now=now())
    plain = b"the whole image"
    whole = signed(short, describe(images=[image("a.img", plain, type="raw")]), {"a.img": plain}, name="whole-2.swu")
    builder.add_target("os/whole-2.swu", whole.read_bytes(), BOARD)
    delta = delta_bundle(short, zck, URL, name="delta-2.swu")
    builder.add_target("os/delta-2.swu", delta.read_bytes(), {**BOARD, "deltaOf": "os/whole-2.swu"})
    builder.add_target("os/image.zck", zck.read_bytes(), custom_of(zck).as_json())
    site = await set_up_site(short, builder)
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(site.running())
        assert (await site.operator.refresh("plant")).problem == ""
        node = await site.node(listening, stack)
        (made,) = await site.operator.assign(AssignRequest(release="2", nodes=None, reason="first"))
        assert made.path == "os/delta-2.swu"
        assert (await links(node))["deploymentBase"]
        (short / "upstream").rename(short / "away")
        await site.operator.refresh("plant")
        assert await offered(node) == "whole-2.swu"
        (short / "away").rename(short / "upstream")
        await site.operator.refresh("plant")
        assert await offered(node) == "delta-2.swu"
        assert await site.ask_plainly(URL, "0-") == (206, zck.read_bytes())
        async with asyncio.timeout(100):
            while list((short / "state").rglob("sparse/*.zck")):  # noqa: ASYNC110 - until it is in the store; nobody tells
                await asyncio.sleep(0.02)
        (short / "upstream").rename(short / "away")
        await site.operator.refresh("plant")
        assert await offered(node) == "delta-2.swu", "every chunk is here"


async def test_a_body_that_no_repository_lists_comes_from_its_url_where_that_is_allowed(short: Path, zck: Path) -> None:
    (short / "cdn" / "os").mkdir(parents=True)
    (short / "cdn" / "os" / "image.zck").write_bytes(zck.read_bytes())
    async with UpstreamServer(short / "cdn") as cdn:
        url = f"{cdn.url}/os/image.zck"
        builder = RepositoryBuilder(now=now())
        builder.add_target("os/1.swu", delta_bundle(short, zck, url).read_bytes(), {"version": "1"})
        site = await set_up_site(short, builder)
        async with site.running():
            assert (await site.operator.refresh("plant")).problem == ""
            assert (await site.ask_plainly(url, "0-9"))[0] == 403
        assert cdn.traffic.requests == 0
        allowed = (cdn.url.removeprefix("http://"),)
        async with site.running(fetch_signed_urls=allowed):
            assert (await site.operator.refresh("plant")).problem == ""
            assert await site.ask_plainly(url, "60000-60099") == (206, zck.read_bytes()[60000:60100])
            assert await site.ask_plainly(url, "0-") == (206, zck.read_bytes())
            assert cdn.traffic.repeated_bytes() == 0
    async with site.running(fetch_signed_urls=allowed):  # the server has gone, the gateway came back
        assert await site.ask_plainly(url, "0-") == (206, zck.read_bytes())
