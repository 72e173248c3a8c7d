"""What is told of jobs arrives: in order, over the server's own steps, with exactly one end, whatever breaks on the way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.database.queries import actions, outgoing
from gateway.database.records import ClientKind, Outgoing
from gateway.north.wfx.workflow import State
from gateway.simulators.wfx import Faults, WfxSimulator
from gateway.simulators.wfx_jobs import DIRECT, PHASED
from tests.builders.bundle_shelf import BundleShelf
from tests.builders.north_site import NorthSite
from tests.builders.wfx_site import PLANT, wfx_site
from tests.interop.wfx_peer import Job, WfxNorth
from update.errors import UnauthorizedError, UnreachableError

ENDS = {"ACTIVATED", "TERMINATED"}


async def begun(site: NorthSite, jobs: WfxNorth, shelf: BundleShelf, workflow: str = DIRECT) -> Job:
    """A job that the node has."""
    job = await jobs.create("n1", workflow, shelf.definition())
    if workflow == PHASED:
        await jobs.advance(job.id, "DOWNLOAD")
    await site.poll()
    assert await site.action("n1") is not None
    return job


async def messages(site: NorthSite) -> list[Outgoing]:
    async with site.database.reading() as transaction:
        found = await outgoing.waiting(transaction, PLANT)
    return list(found)


def statuses(simulator: WfxSimulator, job: Job) -> list[str]:
    """Every state that was set, also twice in a row."""
    found = simulator.jobs.find(job.id)
    past = [each["status"] for each in reversed(found.history) if "status" in each]
    return [str(each["state"]) for each in (*past, found.status) if isinstance(each, dict)]


@pytest.mark.parametrize("end", ["success", "failure"])
async def test_an_answer_that_was_lost_brings_no_second_end(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf, end: str
) -> None:
    job = await begun(site, jobs, shelf)
    await site.say("n1", "closed", end, "words")
    for _ in range(8):
        simulator.faults.unanswered = 1
        done = await site.deliver()
        assert isinstance(done.trouble, UnreachableError) or done.left == 0
    told = statuses(simulator, job)
    assert len([state for state in told if state in ENDS]) == 1
    well = ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"]
    assert told == (["INSTALL", "TERMINATED"] if end == "failure" else well)
    assert await messages(site) == []


async def test_a_server_that_was_away_for_days_hears_everything_in_order(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    simulator.faults.failing = 10_000
    await site.say("n1", "proceeding", "none", "30%")
    assert isinstance((await site.deliver()).trouble, UnreachableError)
    await site.say("n1", "proceeding", "none", "All Chunks Installed.")
    for _ in range(30):
        site.clock.advance(86_400)
        assert (await site.deliver()).sent == 0
    await site.say("n1", "proceeding", "none", "restarts")
    await site.say("n1", "closed", "success", "Update Installed.")
    simulator.faults.failing = 0
    done = await site.deliver()
    assert (done.left, done.trouble) == (0, None)
    told = statuses(simulator, job)
    assert [state for number, state in enumerate(told) if told[number - 1 : number] != [state]] == [
        "INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED",
    ]  # fmt: skip
    assert told.count("ACTIVATED") == 1


async def test_a_failure_waits_where_only_the_server_can_go_on(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    await site.fleet.accounts.give_token("n1", ClientKind.RAUC)
    job = await begun(site, jobs, shelf, PHASED)
    await site.say("n1", "closed", "failure", "no room")
    done = await site.deliver()
    assert (done.left, done.trouble) == (1, None)
    assert simulator.jobs.find(job.id).state == "DOWNLOADED"
    await jobs.advance(job.id, "INSTALL")
    await site.deliver()
    assert simulator.jobs.find(job.id).state == "TERMINATED"
    assert "no room" in str(simulator.jobs.find(job.id).status["message"])


async def test_what_the_server_refuses_is_given_up_and_the_rest_goes_on(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    simulator.faults.refusing = True
    await site.say("n1", "proceeding", "none", "30%")
    done = await site.deliver()
    assert (done.sent, done.trouble) == (1, None)
    simulator.faults.refusing = False
    await site.say("n1", "closed", "failure", "words")
    await site.deliver()
    assert statuses(simulator, job) == ["INSTALL", "TERMINATED"]
    async with site.database.reading() as transaction:
        newest = (await actions.latest(transaction))["n1"]
        told = await outgoing.of_action(transaction, PLANT, "n1", newest.source)
    assert told[0].trouble.startswith("given up: ")


async def test_a_job_that_somebody_else_moved_is_read_again(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    await begun(site, jobs, shelf)
    await site.succeed("n1")
    await site.deliver()
    second = await jobs.create("n1", DIRECT, shelf.definition())
    await site.poll()  # it runs already: there is one message, and its first step will be refused
    simulator.faults.overtaken = ("INSTALLING", "INSTALLED")
    done = await site.deliver()
    assert (done.left, done.trouble) == (0, None)
    assert statuses(simulator, second) == ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"]


async def test_a_job_that_somebody_else_ended_stays_as_it_ended(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    await site.succeed("n1")
    simulator.faults.overtaken = ("TERMINATED",)
    done = await site.deliver()
    assert (done.left, done.trouble) == (0, None)
    assert statuses(simulator, job) == ["INSTALL", "TERMINATED"]


async def test_words_whose_answer_was_lost_are_not_said_twice(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    for words in ("30%", "70%"):
        await site.say("n1", "proceeding", "none", words)
        simulator.faults.unanswered = 1
        assert isinstance((await site.deliver()).trouble, UnreachableError)
        assert (await site.deliver()).left == 0
        simulator.faults.unanswered = 0
    assert statuses(simulator, job) == ["INSTALL", "INSTALLING", "INSTALLING"]


async def test_a_job_is_told_of_in_order_though_its_definition_changed(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    await site.say("n1", "proceeding", "none", "30%")
    await jobs.define(job.id, shelf.definition("a.swu", "b.swu"))
    await site.poll()
    await site.delivery.deliver()
    assert statuses(simulator, job) == ["INSTALL", "INSTALLING", "TERMINATED"], "what is still gathered goes first"


async def test_of_a_job_that_was_deleted_nothing_is_told(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    await site.succeed("n1")
    await jobs.delete(job.id)
    done = await site.deliver()
    assert (done.left, done.trouble) == (0, None)
    assert simulator.jobs.all == {}


def proxy(faults: Faults) -> None:
    faults.absent = True


def guard(faults: Faults) -> None:
    faults.forbidding = True


def portal(faults: Faults) -> None:
    faults.garbage = True


@pytest.mark.parametrize("spoil", [proxy, guard, portal])
async def test_what_is_not_wfxs_own_word_withdraws_and_gives_up_nothing(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf, spoil: Callable[[Faults], None]
) -> None:
    job = await begun(site, jobs, shelf)
    await site.say("n1", "proceeding", "none", "30%")
    spoil(simulator.faults)
    await site.poll()
    done = await site.deliver()
    assert (done.sent, done.left) == (0, 1)
    assert isinstance(done.trouble, (UnreachableError, UnauthorizedError))
    assert await site.action("n1") is not None
    state = await site.upstream.state()
    assert state.code in {"wire.unreachable", "wire.unauthorized", "wire.protocol"}
    simulator.faults = Faults()
    await site.succeed("n1")
    await site.deliver()
    assert simulator.jobs.find(job.id).state == "ACTIVATED"


async def test_what_a_node_says_belongs_to_what_it_does(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    for words, state in (("30%", "INSTALLING"), ("All Chunks Installed.", "ACTIVATE"), ("restarts", "ACTIVATING")):
        await site.say("n1", "proceeding", "none", words)
        await site.deliver()
        assert simulator.jobs.find(job.id).state == state


async def test_what_is_said_before_it_was_sent_is_one_status(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf)
    for words in ("10%", "20%", "30%"):
        await site.say("n1", "proceeding", "none", words)
    await site.deliver()
    assert statuses(simulator, job) == ["INSTALL", "INSTALLING"]
    assert simulator.jobs.find(job.id).status["progress"] == 30


async def test_what_a_node_says_before_it_may_install_is_not_told(
    site: NorthSite, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf
) -> None:
    job = await begun(site, jobs, shelf, PHASED)
    await site.say("n1", "proceeding", "none", "fetches")
    assert (await site.deliver()).left == 0
    await jobs.advance(job.id, "INSTALL")
    await site.poll()
    await site.deliver()
    assert simulator.jobs.find(job.id).state == "INSTALL"


@pytest.mark.parametrize("end", [State.ACTIVATED, State.TERMINATED])
async def test_what_nobody_could_verify_ends_as_configured_and_says_so(
    tmp_path: Path, simulator: WfxSimulator, jobs: WfxNorth, shelf: BundleShelf, end: State
) -> None:
    async with wfx_site(tmp_path, simulator.south, hosts=["127.0.0.1"], unverified=end) as site:
        await site.add_node("n1", ClientKind.RAUC)
        job = await begun(site, jobs, shelf)
        await site.say("n1", "closed", "success", "done")
        await site.deliver()
        assert simulator.jobs.find(job.id).state == "ACTIVATE", "installed, and not proved"
        site.clock.advance(3600)
        await site.fleet.deadlines.sweep()
        await site.deliver()
    status = simulator.jobs.find(job.id).status
    assert status["state"] == end
    assert "unverified" in str(status["message"])
