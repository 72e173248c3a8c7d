"""A gateway in this process, set up as an operator does it, with a folder as its upstream and one stock node."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from gateway.app import Listening, run
from gateway.config import ContentSection, GatewayConfig, StateFolder, load_config
from gateway.control.client import ControlClient
from gateway.control.messages import TokenRequest
from gateway.setup import Wishes, set_up
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk
from update.identity import Hardware
from update.wire.attributes import NodeFacts
from update.wire.authority import make_csr, write_certificate
from update.wire.est import enroll
from update.wire.tls import GATEWAY_IDENTITY, client_context

STOCK = {"User-Agent": "libcurl-agent/1.0"}


def now() -> datetime:
    return datetime.now(UTC)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

    async def node(self, listening: Listening, stack: AsyncExitStack, name: str = "n1") -> aiohttp.ClientSession:
        """A stock node that has a certificate, and has said what it is."""
        token = (await self.operator.token(TokenRequest(valid_s=60, node=name))).token
        ca = StateFolder(self.config.gateway.state).authority[0]
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        url = f"https://127.0.0.1:{listening.port}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context(ca))) as stranger:
            issued = await enroll(stranger, url, name, token, make_csr(Disk(), key, name))
        write_certificate(Disk(), certificate, issued[0])
        connector = aiohttp.TCPConnector(ssl=client_context(ca, certificate=certificate, key=key))
        session = await stack.enter_async_context(aiohttp.ClientSession(url, connector=connector, headers=STOCK))
        await links(session, name)
        facts = NodeFacts(Hardware.parse("board:1"), "1", None, "a").attributes()
        body = {"mode": "replace", "data": facts}
        place = f"/DEFAULT/controller/v1/{name}/configData"
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


async def links(session: aiohttp.ClientSession, name: str = "n1") -> dict[str, Any]:  # Any: hawkBit's own form
    async with session.get(f"/DEFAULT/controller/v1/{name}", server_hostname=GATEWAY_IDENTITY) as response:
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
