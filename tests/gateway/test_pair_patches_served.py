"""From release to slot: a real gateway makes a patch, a real agent finds it cheaper, and without one it takes the chunks."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.config import load_config
from gateway.control.messages import AssignRequest, TokenRequest
from gateway.demo.appliance import Appliance
from gateway.demo.images import DemoImage
from gateway.demo.nodes import Factory, Plan, slot_file
from gateway.demo.release import REPOSITORY, Release, publish_releases
from gateway.simulators.board import Board
from gateway.status import NodeState
from tests.builders.pair_site import small_update
from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import parse_header
from update.digest import Digest
from update.durable import Disk
from update.publish.images import zck_header
from update.wire.authority import make_csr, write_certificate
from update.wire.est import enroll
from update.wire.pairs import patch_url
from update.wire.tls import GATEWAY_IDENTITY, client_context

OLD, NEW = "1.0", "1.1"
PATIENCE_S = 120.0


@dataclass(slots=True)
class Plant:
    """One gateway with patches on, two releases in its upstream, and boards that know it by its address."""

    folder: Path
    release: Release
    images: dict[str, DemoImage]
    gateway: Appliance
    url: str

    @property
    def log(self) -> str:
        return (self.folder / "gateway" / "gateway.log").read_text()

    @property
    def chunk_bytes(self) -> int:
        """What the chunks of the update take."""
        old, new = (parse_header(zck_header(self.release.built[version].deltas[0].file)) for version in (OLD, NEW))
        return plan_delta(new, Source.of_index(old)).fetch_bytes

    @property
    def patches(self) -> list[Path]:
        return sorted((self.folder / "gateway" / "state" / "store" / "pairs").iterdir())

    async def token(self, node: str) -> str:
        return (await self.gateway.client.token(TokenRequest(node=node, valid_s=3600, reason="test"))).token

    @asynccontextmanager
    async def client(self, node: str = "reader") -> AsyncIterator[aiohttp.ClientSession]:
        """Somebody who is enrolled, and reads by himself."""
        ca, key, certificate = self.gateway.site_ca, self.folder / f"{node}.key", self.folder / f"{node}.pem"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context(ca))) as stranger:
            issued = await enroll(stranger, self.url, node, await self.token(node), make_csr(Disk(), key, node))
        write_certificate(Disk(), certificate, issued[0])
        context = client_context(ca, certificate=certificate, key=key)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield session

    def target(self, version: str) -> str:
        delta = self.release.built[version].deltas[0]
        return f"targets/{delta.sha256}.{delta.file.name}"

    def header(self, version: str) -> Digest:
        return self.release.built[version].deltas[0].header.sha256

    async def order(self, session: aiohttp.ClientSession) -> None:
        """Have both images whole in the gateway, by reading them, and let it begin a patch."""
        for version in (OLD, NEW):
            url = f"{self.url}/repositories/{REPOSITORY}/{self.target(version)}"
            async with session.get(url, server_hostname=GATEWAY_IDENTITY) as response:
                assert response.status == 200
                await response.read()
        await self.answered(session, 404)  # they are published a moment later

    async def answered(self, session: aiohttp.ClientSession, status: int) -> tuple[int, int]:
        """The first answer with another status than this one."""
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self.ask(session))[0] == status:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return answer

    async def ask(self, session: aiohttp.ClientSession) -> tuple[int, int]:
        """Status and size of the patch."""
        base = f"{self.url}/repositories/{REPOSITORY}"
        url = patch_url(base, self.target(NEW), base=self.header(OLD), memory_bytes=64 << 20)
        async with session.head(url, server_hostname=GATEWAY_IDENTITY) as response:
            return response.status, int(response.headers.get("Content-Length", "0"))

    def board(self, node: str, token: str, *, wait_s: float) -> Board:
        factory = Factory(
            work=self.folder,
            disk=Disk(),
            images=self.images,
            release=self.release,
            site_ca=self.gateway.site_ca,
            interface="127.0.0.1",
            bootloader="simulated",
        )
        board = factory.make(Plan(node, OLD), token)
        config = self.folder / "nodes" / node / "node.toml"
        text = config.read_text().replace('interfaces = ["127.0.0.1"]', f'url = "{self.url}"')
        config.write_text(f"{text}[patches]\nwait_s = {wait_s}\n")
        return board

    async def updated(self, node: str, *, wait_s: float) -> int:
        """Bring one new board to the new release; bytes that its agent says it has downloaded."""
        board = self.board(node, await self.token(node), wait_s=wait_s)
        board.power_on()
        try:
            await self.until(lambda nodes: any(each.id == node and each.running.version for each in nodes))
            await self.gateway.client.assign(AssignRequest(release=NEW, nodes=(node,), repository="", reason="test"))
            ended = await self.until(lambda nodes: any(each.id == node and each.wanted and each.wanted.outcome for each in nodes))
        finally:
            await board.off()
        state = next(each for each in ended if each.id == node)
        assert state.wanted is not None
        assert (state.wanted.outcome, state.running.slot) == ("success", "b")
        assert slot_file(self.folder / "nodes" / node, "b").read_bytes() == self.images[NEW].path.read_bytes()
        return int(str(state.wanted.report["downloaded_bytes"]))

    async def until(self, condition: Callable[[Sequence[NodeState]], bool]) -> Sequence[NodeState]:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(nodes := await self.gateway.client.nodes()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return nodes


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    contents = dict(zip((OLD, NEW), small_update(random.Random(7).randrange(100)), strict=True))
    for version, content in contents.items():
        (tmp_path / f"rootfs-{version}").write_bytes(content)
    images = tuple(DemoImage(version, tmp_path / f"rootfs-{version}", len(content)) for version, content in contents.items())
    release = await asyncio.to_thread(publish_releases, images, tmp_path, Disk(), lambda _text: None)
    async with AsyncExitStack() as stack:
        (tmp_path / "gateway").mkdir()
        gateway = Appliance(tmp_path / "gateway", interface="127.0.0.1", address="127.0.0.1")
        stack.push_async_callback(gateway.kill)
        await gateway.set_up(Disk(), release, [str(release.folder)])
        config = tmp_path / "gateway" / "gateway.toml"
        text = config.read_text().replace('interfaces = ["127.0.0.1"]', "interfaces = []")
        config.write_text(f"{text}\n[south.pair_patches]\nenabled = true\n")
        await gateway.start()
        assert (await gateway.client.refresh(REPOSITORY)).problem == ""
        port = load_config(config).south.port
        yield Plant(tmp_path, release, {image.version: image for image in images}, gateway, f"https://127.0.0.1:{port}")


async def test_a_small_update_travels_as_a_patch_once_the_gateway_has_both_images(plant: Plant) -> None:
    async with plant.client() as session:
        assert (await plant.ask(session))[0] == 404
        downloaded = await plant.updated("by-chunks", wait_s=60)
        assert downloaded == plant.chunk_bytes
        await plant.order(session)
    downloaded = await plant.updated("by-patch", wait_s=60)
    assert downloaded < plant.chunk_bytes / 10
    (patch,) = plant.patches
    assert patch.stat().st_size == downloaded


async def test_a_gateway_that_is_killed_while_it_makes_a_patch_leaves_nothing_and_makes_it_again(plant: Plant) -> None:
    async with plant.client() as session:
        await plant.order(session)
        await plant.gateway.kill()
        await plant.gateway.start()
        answer = await plant.answered(session, 202)
        assert answer[0] == 200
        (patch,) = plant.patches
        assert (patch.suffix != ".part", patch.stat().st_size) == (True, answer[1])
        await plant.gateway.kill()
        await plant.gateway.start()
        assert await plant.ask(session) == answer
