"""The whole gateway answers the URL that a bundle signs, from the first refresh on and after a restart without upstream."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from gateway.app import run
from gateway.config import ContentSection, GatewayConfig, load_config
from gateway.control.client import ControlClient
from gateway.setup import Wishes, set_up
from tests.builders.delta_bundle import delta_bundle
from tests.builders.keys import make_pki
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk

HOST = "cdn.vendor.example:8081"
PATH = "/some/where/image.zck?v=1"


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


@pytest.fixture
async def config(short: Path, zck: Path) -> GatewayConfig:
    builder = RepositoryBuilder(now=now())
    builder.add_target("blob.bin", zck.read_bytes(), custom_of(zck).as_json())
    builder.add_target("os/1.swu", delta_bundle(short, zck, f"http://{HOST}{PATH}").read_bytes(), {"version": "1"})
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
    return replace(loaded, south=replace(loaded.south, addresses=("127.0.0.1",), interfaces=(), content=content))


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[aiohttp.ClientSession]:
    """The gateway, and a client of its plain listener."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(config, Disk(), now=now, stop=stop, ready=ready.set_result))
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        async with aiohttp.ClientSession(f"http://127.0.0.1:{config.south.content.port}") as session:
            yield session
    finally:
        stop.set()
        await task


async def ask(session: aiohttp.ClientSession, path: str = PATH) -> tuple[int, bytes]:
    async with session.get(path, headers={"Host": HOST, "Range": "bytes=60000-60099"}) as response:
        return response.status, await response.read()


async def test_the_gateway_serves_what_a_bundle_names_also_after_a_restart_without_upstream(
    config: GatewayConfig, short: Path, zck: Path
) -> None:
    wanted = zck.read_bytes()[60000:60100]
    async with running(config) as session:
        assert (await ControlClient(config.control.socket).refresh("plant")).problem == ""
        assert await ask(session) == (206, wanted)
        assert (await ask(session, f"{PATH}0"))[0] == 404
    (short / "upstream").rename(short / "away")
    async with running(config) as session:
        assert await ask(session) == (206, wanted)
