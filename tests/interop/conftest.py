"""Real servers that are slow to start: one of each for all tests of a run."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.hawkbit_management import Management, management
from tests.interop.hawkbit_peer import HawkbitServer, hawkbit_server
from tests.interop.wfx_peer import WfxNorth, WfxServer, wfx_north, wfx_server


@pytest.fixture(scope="session")
def hawkbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HawkbitServer]:
    with hawkbit_server(tmp_path_factory.mktemp("hawkbit")) as server:
        yield server


@pytest.fixture
async def operator(hawkbit: HawkbitServer) -> AsyncIterator[Management]:
    """hawkBit's operator; both kinds of device tokens are let in, the gateway's is `GATEWAY_TOKEN`."""
    async with management(hawkbit) as found:
        await found.admit_devices()
        yield found


@pytest.fixture(scope="session")
def wfx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WfxServer]:
    with wfx_server(tmp_path_factory.mktemp("wfx")) as server:
        yield server


@pytest.fixture
async def jobs(wfx: WfxServer) -> AsyncIterator[WfxNorth]:
    """wfx's operator; both DAU workflows are loaded."""
    async with wfx_north(wfx) as found:
        yield found
