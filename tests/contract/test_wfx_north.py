"""The north side against a wfx, real and simulated: what it wants reaches the node's edge, and its own API shows the end."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.database.records import ActionState, ClientKind
from gateway.fleet.windows import UNTIL_TOLD
from tests.builders.bundle_shelf import BundleShelf, bundle_shelf
from tests.builders.north_site import NorthSite, bundle_bytes
from tests.builders.wfx_site import wfx_site
from tests.interop.wfx_peer import DIRECT, MARKS, PHASED, Job, WfxNorth, WfxServer

pytestmark = pytest.mark.parametrize("wfx", ["simulator", pytest.param("real", marks=MARKS)], indirect=True)

DIRECT_STATES = ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"]
PHASED_STATES = ["CREATED", "DOWNLOAD", "DOWNLOADING", "DOWNLOADED", *DIRECT_STATES]
"""INSTALLED is passed in the moment in which it is reached: its transition is immediate, and wfx keeps only what comes of it."""


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[BundleShelf]:
    async with bundle_shelf(bundle_bytes(tmp_path)) as made:
        yield made


@pytest.fixture
async def site(tmp_path: Path, wfx: WfxServer) -> AsyncIterator[NorthSite]:
    """Node n1 is client `<prefix>n1`; the prefix is this test's own, since the server is shared."""
    async with wfx_site(tmp_path, wfx.south, prefix=f"p{uuid4().hex[:12]}-", hosts=["127.0.0.1"]) as made:
        await made.add_node("n1")
        await made.poll()
        yield made


async def turn(site: NorthSite, jobs: WfxNorth, job: Job) -> str:
    """Ask, deliver, and see what the operator sees."""
    await site.poll()
    await site.deliver()
    return (await jobs.job(job.id)).status.state


async def install(site: NorthSite) -> None:
    """An swupdate at the edge, until it restarts."""
    action = await site.action("n1")
    assert action is not None
    await site.fleet.progress.offer("n1", action.id)
    await site.say("n1", "proceeding", "none", "Installing Update Chunk Artifacts.")
    await site.say("n1", "proceeding", "none", "All Chunks Installed.")


async def test_a_direct_job_goes_through_all_states(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    assert await turn(site, jobs, job) == "INSTALL"
    action = await site.action("n1")
    assert action is not None
    assert (action.state, action.release.path, action.release.version) == (ActionState.OPEN, "os.swu", "1.2")
    assert next(site.store.layout.repositories.rglob("*.swu")).read_bytes() == shelf.content
    await install(site)
    assert await turn(site, jobs, job) == "ACTIVATE"
    await site.say("n1", "closed", "success", "Update Installed.")
    assert await turn(site, jobs, job) == "ACTIVATED"
    seen = await jobs.job(job.id)
    assert seen.states() == DIRECT_STATES
    assert (seen.status.client, seen.status.progress) == (f"{site.prefix}n1", 100)
    await turn(site, jobs, job)
    assert (await jobs.job(job.id)).states() == DIRECT_STATES
    assert len((await jobs.job(job.id)).history) == len(seen.history), "the end is told once"


@pytest.mark.parametrize("kind", [ClientKind.SWUPDATE, ClientKind.RAUC])
async def test_a_phased_job_waits_for_the_server_before_the_node_may_install(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, kind: ClientKind
) -> None:
    await site.fleet.accounts.give_token("n1", kind)
    job = await jobs.create(f"{site.prefix}n1", PHASED, shelf.definition())
    assert await turn(site, jobs, job) == "CREATED"
    assert await site.action("n1") is None
    await jobs.advance(job.id, "DOWNLOAD")
    assert await turn(site, jobs, job) == "DOWNLOADED"
    action = await site.action("n1")
    assert action is not None
    assert action.terms.opens == UNTIL_TOLD
    await turn(site, jobs, job)
    await jobs.advance(job.id, "INSTALL")
    await turn(site, jobs, job)
    action = await site.action("n1")
    assert action is not None
    assert action.terms.opens is None
    if kind is ClientKind.SWUPDATE:
        await install(site)
        await site.say("n1", "closed", "success", "Update Installed.")
    else:
        await site.fleet.progress.offer("n1", action.id)
        await site.say("n1", "proceeding", "none", "installing 40%")
        await site.say("n1", "closed", "success", "done")
        await site.fleet.progress.observe("n1", "1.1", "boot-1")
        assert await turn(site, jobs, job) == "ACTIVATE"
        await site.fleet.progress.observe("n1", "1.2", "boot-2")
    assert await turn(site, jobs, job) == "ACTIVATED"
    assert (await jobs.job(job.id)).states() == PHASED_STATES


async def test_a_failure_terminates_the_job_with_its_reason(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    await site.poll()
    await site.say("n1", "closed", "failure", "the slot is too small")
    assert await turn(site, jobs, job) == "TERMINATED"
    assert "the slot is too small" in (await jobs.job(job.id)).status.message


async def test_what_a_node_says_is_the_message_and_the_progress(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    await site.poll()
    for percent in (10, 55):
        await site.say("n1", "proceeding", "none", f"{percent}% written ü" * 100)
    assert await turn(site, jobs, job) == "INSTALLING"
    status = (await jobs.job(job.id)).status
    assert (status.progress, len(status.message)) == (55, 1024)
    await site.say("n1", "proceeding", "none", "90% written")
    await turn(site, jobs, job)
    assert (await jobs.job(job.id)).status.progress == 90


async def test_a_bundle_that_nobody_vouches_for_is_refused_before_a_node_hears_of_it(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    content = bytearray(shelf.content)
    content[content.index(b"root file system")] ^= 1
    shelf.content = bytes(content)
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    assert await turn(site, jobs, job) == "TERMINATED"
    assert "bundle.hash" in (await jobs.job(job.id)).status.message
    assert await site.action("n1") is None
    assert not list(site.store.layout.repositories.rglob("*.swu"))


async def test_two_bundles_or_none_are_refused(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    for definition in (shelf.definition("a.swu", "b.swu"), shelf.definition("readme.txt"), {"artifacts": "none"}):
        job = await jobs.create(f"{site.prefix}n1", DIRECT, definition)
        assert await turn(site, jobs, job) == "TERMINATED"
    assert shelf.requests == []


async def test_a_job_of_another_workflow_is_left_alone(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    states = [{"name": name} for name in ("INSTALL", "DONE", "BROKEN")]
    steps = [{"from": "INSTALL", "to": end, "eligible": "CLIENT"} for end in ("DONE", "BROKEN")]
    groups = [{"name": "OPEN", "states": ["INSTALL"]}, {"name": "FAILED", "states": ["BROKEN"]}]
    await jobs.load_workflow({"name": "company.own", "states": states, "groups": groups, "transitions": steps})
    foreign = await jobs.create(f"{site.prefix}n1", "company.own", shelf.definition())
    assert await turn(site, jobs, foreign) == "INSTALL"
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    assert action.source.startswith(job.id)


async def test_a_deleted_job_is_withdrawn(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    await site.poll()
    assert await site.action("n1") is not None
    await jobs.delete(job.id)
    await site.poll()
    assert await site.action("n1") is None
    delivered = await site.deliver()
    assert (delivered.left, delivered.trouble) == (0, None)


async def test_jobs_are_done_one_after_the_other(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    first, second = [await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition()) for _ in range(2)]
    await site.poll()
    await site.succeed("n1")
    await turn(site, jobs, first)
    assert await turn(site, jobs, second) == "ACTIVATED", "it runs already"
    assert "runs already" in (await jobs.job(second.id)).status.message


async def test_a_changed_definition_takes_the_place_of_the_former_one(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, tmp_path: Path
) -> None:
    job = await jobs.create(f"{site.prefix}n1", DIRECT, shelf.definition())
    await site.poll()
    before = await site.action("n1")
    shelf.content = bundle_bytes(tmp_path, "1.3")
    changed = shelf.definition() | {"version": "1.1"}
    await jobs.define(job.id, changed)
    await turn(site, jobs, job)
    after = await site.action("n1")
    assert before is not None
    assert after is not None
    assert (before.release.version, after.release.version) == ("1.2", "1.3")
    assert (await jobs.job(job.id)).status.state == "INSTALL", "the former wish ended, and not the job"
    await install(site)
    await site.say("n1", "closed", "success", "Update Installed.")
    assert await turn(site, jobs, job) == "ACTIVATED"


async def test_many_nodes_fetch_one_bundle_once(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf) -> None:
    names = [f"m{index}" for index in range(12)]
    for name in names:
        await site.add_node(name)
        await jobs.create(f"{site.prefix}{name}", DIRECT, shelf.definition())
    await site.poll()
    await site.poll()
    found = [await site.action(name) for name in names]
    assert len({each.release.sha256 for each in found if each is not None}) == 1
    assert all(found)
    assert shelf.gets == 1
