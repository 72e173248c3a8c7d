"""What a wfx wants is taken over once it is proved, and nothing else; whatever the server says."""

from pathlib import Path

import pytest

from gateway.database.queries import nodes
from gateway.database.records import ActionState
from gateway.simulators.wfx import Faults, WfxSimulator
from gateway.simulators.wfx_jobs import DIRECT, PHASED, dau_workflow
from tests.builders.bundle_shelf import BundleShelf
from tests.builders.north_site import NorthSite, bundle_bytes
from tests.builders.wfx_site import wfx_site
from tests.interop.wfx_peer import Job, WfxNorth
from update.digest import digest_of
from update.trust.verified import Provenance, TargetCustom, TargetInfo


async def told(site: NorthSite, simulator: WfxSimulator, job: Job) -> tuple[str, str]:
    """Ask and deliver; the job's state then, and its message."""
    await site.poll()
    await site.deliver()
    status = simulator.jobs.find(job.id).status
    return str(status["state"]), str(status.get("message", ""))


async def test_what_a_repository_lists_is_known_by_it(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    sha256 = digest_of(shelf.content)
    info = TargetInfo("plant", "os/plant.swu", len(shelf.content), sha256, TargetCustom(version="7.1"), "targets")
    site.shelf.content["plant"].append(info)
    async with site.database.writing() as transaction:
        await nodes.set_accepts(transaction, "n1", Provenance.TUF)
    await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    assert (action.release.provenance, action.release.path, action.release.version) == ("tuf", "os/plant.swu", "7.1")
    assert site.store.find(info) is not None, "it need not be fetched again"
    del simulator


async def test_a_node_that_demands_tuf_is_not_offered_less_and_the_reason_goes_north(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    async with site.database.writing() as transaction:
        await nodes.set_accepts(transaction, "n1", Provenance.TUF)
    state, message = await told(site, simulator, await jobs.create("n1", DIRECT, shelf.definition()))
    assert state == "TERMINATED"
    assert "trust.provenance" in message
    assert await site.action("n1") is None


async def test_a_bundle_that_is_not_there_is_waited_for_and_then_refused(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await jobs.create("n1", DIRECT, shelf.definition("later.swu"))
    for _ in range(2):
        assert (await told(site, simulator, job))[0] == "INSTALL"
    state, message = await told(site, simulator, job)
    assert state == "TERMINATED"
    assert "404" in message


async def test_what_is_too_long_is_not_fetched(
    tmp_path: Path, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"], max_bytes=len(shelf.content) - 1) as site:
        await site.add_node("n1")
        state, message = await told(site, simulator, await jobs.create("n1", DIRECT, shelf.definition()))
    assert state == "TERMINATED"
    assert "max_bundle_bytes" in message
    assert shelf.gets == 0


async def test_other_hosts_are_asked_only_where_they_are_configured_and_never_shown_the_token(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    elsewhere = shelf.url.replace("127.0.0.1", "localhost")
    job = await jobs.create("n1", DIRECT, {"artifacts": [{"uri": f"{elsewhere}/os.swu"}]})
    state, message = await told(site, simulator, job)
    assert state == "TERMINATED"
    assert "artifact_hosts" in message
    assert shelf.requests == []
    shelf.leads_to = f"{elsewhere}/os.swu"
    assert (await told(site, simulator, await jobs.create("n1", DIRECT, shelf.definition())))[0] == "TERMINATED"
    assert await site.action("n1") is None
    shelf.leads_to = ""
    await told(site, simulator, await jobs.create("n1", DIRECT, shelf.definition()))
    assert await site.action("n1") is not None
    assert {authorization for _, authorization in shelf.requests} == {""}


@pytest.mark.parametrize(("how", "gets"), [((True, True), 1), ((False, True), 3), ((True, False), 2)])
async def test_a_bundle_is_fetched_once_for_as_long_as_its_server_says_that_it_is_the_same(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, how: tuple[bool, bool], gets: int
) -> None:
    shelf.heads, shelf.etag = how
    for name in ("n1", "n2"):
        if name != "n1":
            await site.add_node(name)
        await jobs.create(name, DIRECT, shelf.definition())
        await site.poll()
        assert await site.action(name) is not None
    assert shelf.gets == gets, "without HEAD, one byte is asked for by each"


async def test_changed_content_at_the_same_address_is_fetched(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, tmp_path: Path
) -> None:
    await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    await site.add_node("n2")
    shelf.content = bundle_bytes(tmp_path, "1.3")
    await jobs.create("n2", DIRECT, shelf.definition())
    await site.poll()
    found = [await site.action(name) for name in ("n1", "n2")]
    assert [each.release.version for each in found if each is not None] == ["1.2", "1.3"]


@pytest.mark.parametrize("serving", [(False, "", 1), (True, "", 1), (True, "always", 2)], ids=["no tag", "honest", "lying"])
async def test_what_broke_off_is_never_mixed_with_other_content(
    site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, tmp_path: Path, serving: tuple[bool, str, int]
) -> None:
    shelf.etag, shelf.tag, polls = serving
    shelf.cut_after = 600
    await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    assert await site.action("n1") is None
    shelf.cut_after, shelf.content = None, bundle_bytes(tmp_path, "1.3")
    for _ in range(polls):
        assert await site.action("n1") is None
        await site.poll()
    action = await site.action("n1")
    assert action is not None
    assert action.release.version == "1.3"


async def test_a_gateway_that_starts_again_goes_on_where_it_was(
    tmp_path: Path, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await jobs.create("n1", PHASED, shelf.definition())
    await jobs.advance(job.id, "DOWNLOAD")
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"]) as first:
        await first.add_node("n1")
        await first.poll()
        before = await first.action("n1")
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"]) as again:
        assert (await told(again, simulator, job))[0] == "DOWNLOADED"
        await jobs.advance(job.id, "INSTALL")
        await told(again, simulator, job)
        after = await again.action("n1")
        assert before is not None
        assert after is not None
        assert (after.id, after.terms.opens) == (before.id, None)
        await again.succeed("n1")
        assert (await told(again, simulator, job))[0] == "ACTIVATED"
    assert shelf.gets == 1


async def test_what_the_node_began_gives_way_to_a_changed_definition_when_it_lets_go(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf, tmp_path: Path
) -> None:
    job = await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    first = await site.action("n1")
    assert first is not None
    await site.fleet.progress.offer("n1", first.id)
    shelf.content = bundle_bytes(tmp_path, "1.3")
    await jobs.define(job.id, shelf.definition() | {"version": "2"})
    await site.poll()
    letting_go = await site.action("n1")
    assert letting_go is not None
    assert (letting_go.id, letting_go.state) == (first.id, ActionState.CANCELLING)
    await site.say("n1", "canceled", "none", "let go")
    assert (await told(site, simulator, job))[0] == "INSTALL"
    second = await site.action("n1")
    assert second is not None
    assert second.release.version == "1.3"
    await site.say("n1", "closed", "failure", "no room")
    assert (await told(site, simulator, job))[0] == "TERMINATED"


async def test_a_job_that_was_ended_there_is_withdrawn_here(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    simulator.jobs.set_status(job.id, {"state": "TERMINATED", "message": "by hand"}, "CLIENT")
    assert await told(site, simulator, job) == ("TERMINATED", "by hand")
    assert await site.action("n1") is None


async def test_an_end_that_the_server_did_not_keep_is_told_again_after_a_while(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()
    await site.say("n1", "closed", "failure", "no room")
    assert (await told(site, simulator, job))[0] == "TERMINATED"
    restored = simulator.jobs.all[job.id]
    restored.status = {"state": "INSTALL", "definitionHash": restored.status["definitionHash"]}
    await site.poll()
    assert (await site.delivery.deliver()).sent == 0
    site.clock.advance(3600)
    assert await told(site, simulator, job) == ("TERMINATED", "outcome: failure: no room")
    assert await site.action("n1") is None


async def test_a_workflow_that_leads_nowhere_is_refused_as_far_as_it_allows(
    tmp_path: Path, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    crooked = dau_workflow(DIRECT) | {"name": "crooked"}
    steps = crooked["transitions"]
    assert isinstance(steps, list)
    crooked["transitions"] = [each for each in steps if each["to"] != "ACTIVATED"]
    simulator.jobs.workflows["crooked"] = crooked
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"], workflows=["crooked"]) as site:
        await site.add_node("n1")
        state, message = await told(site, simulator, await jobs.create("n1", "crooked", shelf.definition()))
        assert await site.action("n1") is None
    assert state == "TERMINATED"
    assert "crooked" in message
    assert shelf.requests == []


@pytest.mark.parametrize("lie", [Faults(state="NONSENSE"), Faults(state="CREATED"), Faults(state="ACTIVATED")])
async def test_a_server_that_lies_about_states_brings_a_node_nothing(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf, lie: Faults
) -> None:
    job = await jobs.create("n1", DIRECT, shelf.definition())
    simulator.faults = lie
    assert (await told(site, simulator, job))[0] == "INSTALL"
    assert await site.action("n1") is None


async def test_jobs_of_others_in_the_list_are_not_taken(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    simulator.faults.foreign = True
    job = await jobs.create("somebody", DIRECT, shelf.definition())
    assert (await told(site, simulator, job))[0] == "INSTALL"
    assert await site.action("n1") is None
