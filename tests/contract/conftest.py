"""Servers that contracts are held against: a real one is slow to start, and there is one of it for all tests of a run."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from gateway.simulators.wfx import WfxSimulator
from tests.interop.wfx_peer import WfxNorth, WfxServer, wfx_north, wfx_server


@pytest.fixture(scope="session")
def real_wfx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WfxServer]:
    with wfx_server(tmp_path_factory.mktemp("wfx")) as server:
        yield server


@pytest.fixture
async def wfx(request: pytest.FixtureRequest) -> AsyncIterator[WfxServer]:
    """The server that the test is parametrized with: `simulator` or `real`."""
    if request.param == "real":
        yield request.getfixturevalue("real_wfx")
        return
    async with WfxSimulator() as simulator:
        yield WfxServer(simulator.south, simulator.north)


@pytest.fixture
async def jobs(request: pytest.FixtureRequest, wfx: WfxServer) -> AsyncIterator[WfxNorth]:
    """The server's operator; both DAU workflows are loaded."""
    if request.node.callspec.params["wfx"] == "real":
        async with wfx_north(wfx) as found:
            yield found
        return
    async with aiohttp.ClientSession() as session:
        yield WfxNorth(session, wfx)
