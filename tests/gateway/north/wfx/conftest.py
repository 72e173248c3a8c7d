"""A site below a simulated wfx."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.simulators.wfx import WfxSimulator
from tests.builders.bundle_shelf import BundleShelf, bundle_shelf
from tests.builders.north_site import NorthSite, bundle_bytes
from tests.builders.wfx_site import wfx_site
from tests.interop.wfx_peer import WfxNorth, WfxServer


@pytest.fixture
async def simulator() -> AsyncIterator[WfxSimulator]:
    async with WfxSimulator() as made:
        yield made


@pytest.fixture
async def jobs(simulator: WfxSimulator) -> AsyncIterator[WfxNorth]:
    async with aiohttp.ClientSession() as session:
        yield WfxNorth(session, WfxServer(simulator.south, simulator.north))


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[BundleShelf]:
    async with bundle_shelf(bundle_bytes(tmp_path)) as made:
        yield made


@pytest.fixture
async def site(tmp_path: Path, simulator: WfxSimulator) -> AsyncIterator[NorthSite]:
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"]) as made:
        await made.add_node("n1")
        yield made
