"""How often and what a hawkBit server is asked and told, counted by a server that does nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.database.queries import nodes
from gateway.database.records import SITE, Running
from tests.benchmarks.polling_north import North, serve_north
from tests.builders.north_site import NorthSite, north_site


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[North]:
    (tmp_path / "os.swu").write_bytes(b"bundle")
    north = North(0, "00:05:00", (), tmp_path / "os.swu")
    async with serve_north(north):
        yield north


@pytest.fixture
async def site(tmp_path: Path, server: North) -> AsyncIterator[NorthSite]:
    async with north_site(tmp_path, f"http://127.0.0.1:{server.port}", "0123456789abcdef0123456789abcdef") as made:
        for name in ("n1", "n2"):
            await made.add_node(name)
        yield made


async def requests(site: NorthSite, server: North) -> int:
    """Of one round."""
    server.restart()
    await site.poll()
    return server.requests


async def test_each_node_is_asked_for_and_described_once(site: NorthSite, server: North) -> None:
    assert [await requests(site, server) for _ in range(3)] == [4, 2, 2]
    assert server.targets == {"n1", "n2"}


async def test_a_node_is_described_again_when_it_has_changed(site: NorthSite, server: North) -> None:
    await requests(site, server)
    async with site.database.writing() as transaction:
        await nodes.describe(transaction, "n2", attributes={"rack": "7"}, hardware=None, running=Running("1.3"))
    assert [await requests(site, server) for _ in range(2)] == [3, 2]


async def test_a_node_that_another_assigner_has_is_asked_for_no_more(site: NorthSite, server: North) -> None:
    await requests(site, server)
    async with site.database.writing() as transaction:
        await nodes.set_assigner(transaction, "n1", SITE)
    server.targets.clear()
    assert await requests(site, server) == 1
    assert server.targets == {"n2"}
