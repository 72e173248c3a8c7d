"""A delta that comes from a real hawkBit, installed by unmodified swupdate behind a real gateway.

The deployment holds a delta bundle, the whole bundle of the same release, and the `.zck` as one more artifact. hawkBit itself
counts: every request for an artifact, each range of it too, is an entry in the history of an action.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.builders.bundles import describe, signed
from tests.builders.delta_bundle import delta_image
from tests.interop.hawkbit_management import Artifact, Management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer
from tests.interop.plant import WRITTEN, Deployed, Plant, hurried, plant, until
from tests.interop.stock_node import TRIAL, StockNode
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header

pytestmark = MARKS

FOREIGN = "http://cdn.vendor.example:8081/deltas/image.zck?version=2"
STABLE = "http://plant:8443/targets/os/image.zck"
"""The repository's own name, which resolves to the gateway; the port is that of the nodes' loopback."""
VERSION = "2.0"


@dataclass(frozen=True, slots=True)
class Images:
    """What runs, what is to run, and that as a `.zck`."""

    old: bytes
    new: bytes
    zck: Path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    folder, dice = tmp_path_factory.mktemp("images"), random.Random(17)
    old = b"".join(dice.randbytes(2048) + bytes(2048) for _ in range(500))
    new = bytearray(old)
    for number in range(12):
        place = number * len(old) // 12 + dice.randrange(3000)
        new[place : place + 900] = dice.randbytes(900)
    (folder / "new").write_bytes(new)
    write_zchunk(folder / "new", folder / "new.zck", Disk())
    return Images(old, bytes(new), folder / "new.zck")


@dataclass(frozen=True, slots=True)
class Release:
    """One set at hawkBit."""

    number: int
    module: int
    zck: Artifact


async def publish(operator: Management, site: Plant, images: Images, url: str, *, whole: bool = True) -> Release:
    """A set of one module with all files, whose names say nothing."""
    entry = delta_image(images.zck, url, device=str(site.place))
    entry["properties"] = {"url": url, "source": str(site.source), "chain": "raw", "max-ranges": "10"}
    described = describe(images=[entry], version=VERSION)
    delta = signed(site.folder, described, {"image-0.zck": zck_header(images.zck)}, name="delta.swu")
    name = f"firmware-{uuid4().hex}"
    module = await operator.create_module(name, VERSION)
    await operator.upload(module, "one.swu", delta.read_bytes())
    if whole:
        await operator.upload(module, "two.swu", site.bundle(images.new, VERSION))
    zck = await operator.upload(module, "blob.bin", images.zck.read_bytes())
    return Release(await operator.create_set(name, VERSION, [module]), module, zck)


@asynccontextmanager
async def delta_plant(folder: Path, server: HawkbitServer, names: list[str], images: Images) -> AsyncIterator[Plant]:
    """Nodes that run the old image and come by the gateway's name, or by proxy."""
    async with plant(folder, server.url, names, slot_bytes=len(images.new)) as site:
        for node in site.nodes.values():
            node.source.write_bytes(images.old)
            (node.environment.etc / "hosts").write_text("127.0.0.1 localhost plant\n")
        yield site


async def update(node: StockNode, deployed: Deployed, images: Images) -> None:
    """Through its restart, until hawkBit has heard of it."""
    async with node.running():
        await deployed.says(WRITTEN)
    assert node.slot.read_bytes() == images.new
    node.restart(TRIAL)
    async with node.running():
        assert await deployed.end() == ["finished"]


async def downloads(deployed: Deployed, name: str = "") -> int:
    """How many requests for artifacts hawkBit has counted."""
    history = await deployed.history()
    return sum(entry.type == "download" and name in "".join(filter(None, entry.messages)) for entry in history)


def used_delta(node: StockNode) -> bool:
    return "[install_delta]" in node.log


@pytest.mark.parametrize("url", [FOREIGN, STABLE], ids=["http_proxy", "stable name"])
async def test_a_delta_is_completed_with_an_artifact_and_costs_the_server_nothing_a_second_time(
    tmp_path: Path, hawkbit: HawkbitServer, operator: Management, images: Images, url: str
) -> None:
    async with hurried(operator), delta_plant(tmp_path, hawkbit, ["n1", "n2"], images) as site, site.running():
        for node in site.nodes.values():
            node.proxied = url == FOREIGN
        release = await publish(operator, site, images, url)
        deployed = await site.assign_to(operator, ["n1", "n2"], release.number)
        await update(site.nodes["n1"], deployed["n1"], images)
        before = [await downloads(each, "blob.bin") for each in deployed.values()]
        assert 1 < sum(before) < 10, "the header once, and the chunks in requests for many ranges each"
        await update(site.nodes["n2"], deployed["n2"], images)
        assert [await downloads(each, "blob.bin") for each in deployed.values()] == before
        assert all(used_delta(node) for node in site.nodes.values())


async def test_the_whole_bundle_is_offered_once_the_artifact_is_gone(
    tmp_path: Path, hawkbit: HawkbitServer, operator: Management, images: Images
) -> None:
    async with hurried(operator), delta_plant(tmp_path, hawkbit, ["n1"], images) as site:
        release = await publish(operator, site, images, FOREIGN)
        async with site.running():
            deployed = await site.assign_to(operator, ["n1"], release.number)
            await until("the gateway has taken it over", lambda: is_wanted(site, "two.swu on n1"))
        await operator.delete_artifact(release.module, release.zck)
        node = site.nodes["n1"]
        node.proxied = True
        async with site.running():
            await update(node, deployed["n1"], images)
        assert not used_delta(node)


async def test_a_deployment_that_is_only_a_delta_is_offered_only_while_its_artifact_can_be_had(
    tmp_path: Path, hawkbit: HawkbitServer, operator: Management, images: Images
) -> None:
    async with hurried(operator), delta_plant(tmp_path, hawkbit, ["n1"], images) as site:
        release, node = await publish(operator, site, images, FOREIGN, whole=False), site.nodes["n1"]
        await operator.delete_artifact(release.module, release.zck)
        node.proxied = True
        async with site.running(), node.running():
            deployed = await site.assign_to(operator, ["n1"], release.number)
            await until("the gateway has taken it over", lambda: is_wanted(site, "one.swu on n1"))
            polled = node.log.count("No pending action on server")
            await until("the node has asked in vain", lambda: asyncio.sleep(0, has_polled(node, polled + 2)))
        assert await downloads(deployed["n1"], "blob.bin") == 0
        assert not used_delta(node)
        await operator.upload(release.module, "again.bin", images.zck.read_bytes())
        async with site.running():
            await update(node, deployed["n1"], images)
        assert used_delta(node)


async def is_wanted(site: Plant, what: str) -> bool:
    return f"wants {what}" in site.appliance.log


def has_polled(node: StockNode, times: int) -> bool:
    return node.log.count("No pending action on server") >= times
