"""A site whose node n1 is assigned for by a simulated hawkBit."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.simulators.hawkbit import HawkbitSimulator
from tests.builders.north_site import NorthSite, bundle_bytes, north_site

TOKEN = "gatewaytokenofthewholetenant0001"  # noqa: S105 - of servers that live as long as a test


@pytest.fixture
async def simulator() -> AsyncIterator[HawkbitSimulator]:
    async with HawkbitSimulator(TOKEN) as made:
        yield made


@pytest.fixture
async def site(tmp_path: Path, simulator: HawkbitSimulator) -> AsyncIterator[NorthSite]:
    async with north_site(tmp_path, simulator.url, TOKEN) as made:
        await made.add_node("n1")
        await made.poll()
        yield made


@pytest.fixture
def bundle(tmp_path: Path) -> bytes:
    return bundle_bytes(tmp_path)
