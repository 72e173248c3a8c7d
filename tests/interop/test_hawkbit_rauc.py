"""RAUC's own hawkBit client and the real rauc service behind a real gateway process behind a real hawkBit.

The bundle comes from hawkBit alone: no metadata lists it, so its signature is all that speaks for it.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from uuid import uuid4

import pytest

from gateway.control.node_messages import SettingsRequest
from tests.interop.hawkbit_management import Management
from tests.interop.hawkbit_peer import HawkbitServer
from tests.interop.plant import COMPANY, Deployed, above, hurried, is_target, until
from tests.interop.rauc_site import NODE, OLDER, VERSION, RaucSite, rauc_site
from tests.interop.rauc_tool import COMPATIBLE
from update.trust.verified import Provenance

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("loop-devices"), pytest.mark.timeout(400)]

NOT_VERIFIED = "installed, not yet verified"
WRONG_BYTE_AT = 100_000


@pytest.fixture
def prefix() -> str:
    return f"r{uuid4().hex[:12]}-"


@pytest.fixture
async def site(
    tmp_path_factory: pytest.TempPathFactory, hawkbit: HawkbitServer, operator: Management, prefix: str
) -> AsyncIterator[RaucSite]:
    folder = tmp_path_factory.mktemp("raw")
    more = above(folder, hawkbit.url, prefix)
    async with hurried(operator), rauc_site(folder, more=more, listed=False) as found:
        await found.operator.set_node(NODE, SettingsRequest(assigner=COMPANY, accepts=Provenance.CMS))
        yield found


async def deploy(operator: Management, target: str, bundle: bytes) -> Deployed:
    """Assign a bundle to the device, once it has said what it is."""
    await until(f"{target} is a target", partial(is_target, operator, target))
    number = await operator.publish(f"press-{uuid4().hex}", VERSION, "press.raucb", bundle)
    return Deployed(operator, target, await operator.assign(target, number))


def actions_of(site: RaucSite) -> int:
    """How many actions the gateway ever had."""
    with closing(sqlite3.connect(site.appliance.state.database)) as kept:
        (found,) = kept.execute("SELECT COUNT(*) FROM actions").fetchone()
    return int(found)


@pytest.mark.parametrize(("runs", "ends"), [(VERSION, ("finished", "success")), (OLDER, ("error", "rolled-back"))])
async def test_what_runs_after_the_restart_is_the_one_end_that_hawkbit_hears_of(
    site: RaucSite, operator: Management, prefix: str, runs: str, ends: tuple[str, str]
) -> None:
    end, standing = ends
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        deployed = await deploy(operator, prefix + NODE, site.bundle.read_bytes())
        await site.stands(NOT_VERIFIED)
        assert site.device.slot("B").startswith(site.image)
        await site.is_seen()
        assert await deployed.ends() == [], "the client has told a success, and nothing is proved before the restart"
        site.restart(runs)
        assert await deployed.end() == [end]
    await site.stands(standing)
    node = await site.node()
    assert node.wanted is not None
    assert (node.wanted.provenance, node.running.version) == ("cms", runs)
    assert (site.said.count("Deployment found"), site.said.count("result 0")) == (1, 1)
    assert [entry.type for entry in await deployed.history()].count(end) == 1


@pytest.mark.parametrize("format_", ["plain", "verity"])
async def test_a_bundle_with_one_wrong_byte_is_refused_before_the_node_hears_of_it(
    site: RaucSite, operator: Management, prefix: str, format_: str
) -> None:
    content = bytearray(site.tool.bundle(format_, name=f"broken-{format_}").read_bytes())
    content[WRONG_BYTE_AT] ^= 1
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        deployed = await deploy(operator, prefix + NODE, bytes(content))
        assert await deployed.end() == ["error"]
        assert actions_of(site) == 0
        better = await deploy(operator, prefix + NODE, site.bundle.read_bytes())
        await site.stands(NOT_VERIFIED)
    words = await deployed.words()
    assert ("other content" in words) if format_ == "plain" else ("bundle.hash:" in words), words
    assert (site.said.count("Deployment found"), actions_of(site)) == (1, 1)
    assert (await deployed.ends(), await better.ends()) == (["error"], [])
