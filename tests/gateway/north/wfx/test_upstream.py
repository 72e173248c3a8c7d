"""One wfx as the gateway asks it: in time, by its events, and again when they break off."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.north.wfx.upstream import WfxUpstream
from gateway.simulators.wfx import WfxSimulator
from gateway.simulators.wfx_jobs import DIRECT
from tests.builders.bundle_shelf import BundleShelf
from tests.builders.north_site import NorthSite
from tests.builders.wfx_site import wfx_site
from tests.interop.wfx_peer import WfxNorth

PATIENCE_S = 60


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


def asked_now(site: NorthSite) -> WfxUpstream:
    """The upstream, whose next polls are not due before their time."""
    assert isinstance(site.upstream, WfxUpstream)
    return site.upstream


async def test_an_event_has_a_node_asked_for_at_once(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    upstream = asked_now(site)
    await site.poll()
    await jobs.create("n1", DIRECT, shelf.definition())
    await upstream.poll_all()
    assert await site.action("n1") is None, "its time has not come"
    listening = asyncio.create_task(upstream.listen({"n1": "n1"}))
    await until(lambda: simulator.listeners == 1)
    job = await jobs.create("n1", DIRECT, shelf.definition())
    simulator.cut_events()
    await listening
    await upstream.poll_all()
    action = await site.action("n1")
    assert action is not None
    assert not action.source.startswith(job.id), "the oldest comes first"


async def test_what_a_client_says_is_no_news(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    upstream = asked_now(site)
    job = await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    await site.fleet.takeover.withdraw("n1", site.assigner, action.source, "to see whether it is asked for")
    second = await jobs.create("n1", DIRECT, shelf.definition())
    listening = asyncio.create_task(upstream.listen({"n1": "n1"}))
    await until(lambda: simulator.listeners == 1)
    await site.deliver()
    assert simulator.jobs.find(job.id).state == "TERMINATED"
    simulator.cut_events()
    await listening
    await upstream.poll_all()
    assert await site.action("n1") is None
    await site.poll()
    found = await site.action("n1")
    assert found is not None
    assert found.source.startswith(second.id)


async def test_a_stream_that_breaks_off_is_opened_again(
    tmp_path: Path, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"], events=True) as site:
        await site.add_node("n1")
        running = asyncio.create_task(asked_now(site).run())
        try:
            await until(lambda: simulator.listeners == 1)
            simulator.cut_events()
            await until(lambda: simulator.listeners == 0)
            await until(lambda: simulator.listeners == 1)
            job = await jobs.create("n1", DIRECT, shelf.definition("a.swu", "b.swu"))
            await until(lambda: simulator.jobs.find(job.id).state == "TERMINATED")
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_how_the_server_stands_is_said(site: NorthSite, simulator: WfxSimulator) -> None:
    await site.poll()
    well = await site.upstream.state()
    assert (well.name, well.nodes, well.contact, well.code) == ("wfx:plant", 1, site.clock(), "")
    simulator.faults.failing = 1
    await site.poll()
    away = await site.upstream.state()
    assert (away.code, away.contact) == ("wire.unreachable", well.contact)
    await site.poll()
    assert (await site.upstream.state()).code == ""
