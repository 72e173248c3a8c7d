"""The whole gateway towards a stock node: a delta while its chunks can be had, else the whole bundle; a body from its URL."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.control.messages import AssignRequest
from gateway.simulators.upstream import UpstreamServer
from tests.builders.bundles import describe, image, signed
from tests.builders.delta_bundle import delta_bundle
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import links, now, offered, set_up_site

URL = "http://cdn.vendor.example/image.zck"
BOARD = {"hwIds": ["board:1"], "version": "2"}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def zck(short: Path) -> Path:
    return make_zck(short, blocks=60)


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
