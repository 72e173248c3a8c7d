"""The updater protocol end to end: RAUC's own hawkBit client and the real rauc service behind a real gateway process.

The client (`rauc-hawkbit` of PyPI) closes an action right after the installation, as rauc-hawkbit-updater does; it has neither
its resuming nor its streaming, so these are shown by requests like the ones that ddi clients were seen to send.
"""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.control.messages import AssignRequest
from tests.interop.plant import until
from tests.interop.rauc_site import NODE, OLDER, VERSION, RaucSite, rauc_site
from tests.interop.rauc_tool import COMPATIBLE
from update.errors import HardwareError

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("loop-devices"), pytest.mark.timeout(300)]


@pytest.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RaucSite]:
    async with rauc_site(tmp_path_factory.mktemp("upd")) as found:
        yield found


async def order(site: RaucSite) -> int:
    assert (await site.operator.refresh("plant")).problem == ""
    (made,) = await site.operator.assign(AssignRequest(release=VERSION, nodes=(NODE,)))
    return made.action


@pytest.mark.parametrize(("runs", "end"), [(VERSION, "success"), (OLDER, "rolled-back")])
async def test_a_release_is_installed_shown_as_not_verified_and_judged_by_what_runs_after_the_restart(
    site: RaucSite, runs: str, end: str
) -> None:
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await order(site)
        await site.stands("installed, not yet verified")
    assert site.device.primary == "B"
    assert site.device.slot("B")[: len(site.image)] == site.image
    await site.is_seen()
    site.restart(runs)
    await site.stands(end)
    node = await site.node()
    assert node.wanted is not None
    assert (node.wanted.provenance, node.running.version) == ("tuf", runs)


async def test_it_is_not_installed_twice_while_it_waits_for_its_proof(site: RaucSite) -> None:
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await order(site)
        await site.stands("installed, not yet verified")
        seen = (await site.node()).last_seen

        async def has_polled() -> bool:
            return (await site.node()).last_seen > seen

        await until("the client has polled again", has_polled)
    assert (site.said.count("Deployment found"), site.said.count("result 0")) == (1, 1)


async def test_an_installation_that_fails_is_a_failure_with_raucs_reason(site: RaucSite) -> None:
    (site.device.folder / "backend").write_text("#!/bin/sh\nexit 1\n")
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await order(site)
        await site.stands("failure")
    assert site.device.primary == "A"
    assert "completed with result: 1" in str((await site.node()).wanted)


async def test_what_the_node_would_refuse_is_refused_at_the_order(site: RaucSite) -> None:
    with site.updater(**{"rauc.compatible": "another thing"}):
        await site.is_described()
        with pytest.raises(HardwareError):
            await order(site)


async def test_an_updater_that_comes_back_for_the_rest_is_told_that_there_is_none(site: RaucSite) -> None:
    """rauc-hawkbit-updater's `resume_downloads`: it takes 416 for the end of its download."""
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        action = await order(site)
        await site.stands("installed, not yet verified")
    bundle = site.bundle.read_bytes()
    size = len(bundle)
    headers = {"Authorization": f"TargetToken {site.token}", "User-Agent": "rauc-hawkbit-c-agent/1.0"}
    url = f"{site.origin}/DEFAULT/controller/v1/{NODE}/softwaremodules/{action}/artifacts/press.raucb"
    async with aiohttp.ClientSession(headers=headers) as session:
        for span, status, body in (
            (f"bytes={size}-", 416, b""),
            (f"bytes={size - 8}-", 206, bundle[-8:]),
            ("bytes=0-3", 206, b"hsqs"),
        ):
            async with session.get(url, headers={"Range": span}, ssl=site.trust()) as response:
                assert (response.status, await response.read()) == (status, body)
