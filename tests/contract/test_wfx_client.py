"""What the client of wfx's south side rests on, held against a real server and the simulator, and against the interface."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from gateway.north.spacing import Spacing
from gateway.north.wfx.client import Shown, WfxClient
from gateway.north.wfx.meaning import source_of
from gateway.north.wfx.messages import Event, JobStatus
from gateway.north.wfx.workflow import Turn, next_move
from tests.builders.bundle_shelf import bundle_shelf
from tests.builders.exchanges import Listener, listener
from tests.builders.north_site import bundle_bytes
from tests.builders.openapi import OpenApi, shared_file
from tests.builders.wfx_site import wfx_site
from tests.interop.wfx_peer import DIRECT, MARKS, PHASED, WfxNorth, WfxServer
from update.errors import NotFoundError, ProtocolError

pytestmark = pytest.mark.parametrize("wfx", ["simulator", pytest.param("real", marks=MARKS)], indirect=True)

PATIENCE_S = 60
HAPPENED = ["CREATE", "DELETE", "UPDATE_DEFINITION", "UPDATE_STATUS", "UPDATE_STATUS"]
DEFINITION: dict[str, object] = {"version": "1.0", "type": ["firmware"], "artifacts": [{"name": "a", "version": "1", "uri": "u"}]}


@pytest.fixture
async def heard(wfx: WfxServer) -> AsyncIterator[Listener]:
    async with listener(wfx.south) as made:
        yield made


@pytest.fixture
async def client(wfx: WfxServer, heard: Listener) -> AsyncIterator[WfxClient]:
    """Its requests are heard; streams go to the server itself."""
    del wfx
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield WfxClient(session, heard.url, Spacing(1000, now=lambda: 0.0), Shown())


def name() -> str:
    return f"client-{uuid4().hex}"


async def test_open_jobs_are_the_clients_own_the_oldest_first(client: WfxClient, jobs: WfxNorth) -> None:
    mine = name()
    made = [(await jobs.create(mine, DIRECT, DEFINITION)).id for _ in range(3)]
    await jobs.create(name(), DIRECT, DEFINITION)
    await jobs.create(mine, PHASED, DEFINITION)
    assert [job.id for job in await client.open_jobs(mine)] == made, "CREATED is in no group"
    await client.set_status(mine, made[0], JobStatus(state="TERMINATED", message="no"))
    found = await client.open_jobs(mine)
    assert [job.id for job in found] == made[1:]
    assert found[0].definition == DEFINITION
    assert found[0].workflow is not None
    assert found[0].workflow.name == DIRECT
    assert next_move(found[0].workflow, "INSTALL", "ACTIVATED").state == "INSTALLING"


async def test_tags_select(wfx: WfxServer, jobs: WfxNorth) -> None:
    mine = name()
    tagged = await jobs.create(mine, DIRECT, DEFINITION, ["plant", "x"])
    await jobs.create(mine, DIRECT, DEFINITION, ["other"])
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        choosy = WfxClient(session, wfx.south, Spacing(1000, now=lambda: 0.0), Shown(), tags=["plant", "elsewhere"])
        assert [job.id for job in await choosy.open_jobs(mine)] == [tagged.id]


async def test_steps_are_taken_and_the_server_takes_its_own(client: WfxClient, jobs: WfxNorth) -> None:
    mine = name()
    job = await jobs.create(mine, DIRECT, DEFINITION)
    status = JobStatus(state="INSTALLING", message="ü" * 1024, progress=40)
    assert (await client.set_status(mine, job.id, status)).message == "ü" * 1024
    assert (await client.set_status(mine, job.id, status.model_copy(update={"progress": 60}))).progress == 60
    assert (await client.set_status(mine, job.id, JobStatus(state="INSTALLED"))).state == "ACTIVATE"
    for state in ("ACTIVATING", "ACTIVATED"):
        assert (await client.set_status(mine, job.id, JobStatus(state=state))).state == state
    seen = await jobs.job(job.id)
    assert seen.states() == ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"]
    assert seen.status.client == mine


@pytest.mark.parametrize(
    "status",
    [
        JobStatus(state="ACTIVATED"),
        JobStatus(state="NONSENSE"),
        JobStatus(state="INSTALLING", message="x" * 1025),
        JobStatus(state="INSTALLING", progress=101),
    ],
    ids=["a step that is not there", "no state", "too many words", "too far"],
)
async def test_what_the_server_refuses_is_named_and_changes_nothing(client: WfxClient, jobs: WfxNorth, status: JobStatus) -> None:
    job = await jobs.create(mine := name(), DIRECT, DEFINITION)
    with pytest.raises(ProtocolError):
        await client.set_status(mine, job.id, status)
    assert (await client.job(mine, job.id)).status.state == "INSTALL"


async def test_the_operators_steps_are_not_ours(client: WfxClient, jobs: WfxNorth) -> None:
    job = await jobs.create(mine := name(), PHASED, DEFINITION)
    found = await client.job(mine, job.id)
    assert found.workflow is not None
    assert next_move(found.workflow, "CREATED", "DOWNLOADING").turn is Turn.THEIRS
    with pytest.raises(ProtocolError):
        await client.set_status(mine, job.id, JobStatus(state="DOWNLOAD"))


async def test_an_end_is_taken_again_so_it_must_not_be_told_twice(client: WfxClient, jobs: WfxNorth) -> None:
    job = await jobs.create(mine := name(), DIRECT, DEFINITION)
    for words in ("one", "two"):
        await client.set_status(mine, job.id, JobStatus(state="TERMINATED", message=words))
    assert (await jobs.job(job.id)).status.message == "two"


async def test_a_deleted_job_is_gone_by_name(client: WfxClient, jobs: WfxNorth) -> None:
    job = await jobs.create(mine := name(), DIRECT, DEFINITION)
    await jobs.delete(job.id)
    with pytest.raises(NotFoundError, match=r"wfx\.jobNotFound"):
        await client.job(mine, job.id)
    with pytest.raises(NotFoundError):
        await client.set_status(mine, job.id, JobStatus(state="INSTALLING"))


async def test_a_changed_definition_is_another_wish_of_the_same_job(client: WfxClient, jobs: WfxNorth) -> None:
    job = await jobs.create(mine := name(), DIRECT, DEFINITION)
    before = await client.job(mine, job.id)
    await jobs.define(job.id, DEFINITION | {"version": "1.1"})
    after = await client.job(mine, job.id)
    assert before.status.definition_hash != after.status.definition_hash
    assert source_of(before) != source_of(after)


async def test_events_name_what_happens_to_the_clients_jobs(wfx: WfxServer, jobs: WfxNorth) -> None:
    mine, seen = name(), list[Event]()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        client = WfxClient(session, wfx.south, Spacing(1000, now=lambda: 0.0), Shown())
        async with aclosing(client.events([mine])) as events:
            first = asyncio.ensure_future(anext(events))
            while not first.done():  # the stream is open once it brings something
                await jobs.create(mine, PHASED, DEFINITION)
                await asyncio.wait([first], timeout=0.5)
            job = await jobs.create(mine, PHASED, DEFINITION)
            await jobs.create(name(), DIRECT, DEFINITION)
            await jobs.advance(job.id, "DOWNLOAD")
            await client.set_status(mine, job.id, JobStatus(state="DOWNLOADING"))
            await jobs.define(job.id, DEFINITION | {"version": "2"})
            await jobs.delete(job.id)
            async with asyncio.timeout(PATIENCE_S):
                async for event in events:
                    seen.append(event)
                    if len([each for each in seen if each.job.id == job.id]) == len(HAPPENED):
                        break
    assert {event.job.client for event in seen} == {mine}
    told = [(event.action, event.job.status.client) for event in seen if event.job.id == job.id]
    assert sorted(action for action, _ in told) == HAPPENED, "the order is not promised"
    assert {client for action, client in told if action == "UPDATE_STATUS"} == {"", mine}, "what a client says names it"


# --- against the interface


async def test_all_that_is_asked_and_answered_is_in_the_published_interface(
    heard: Listener, jobs: WfxNorth, tmp_path: Path
) -> None:
    interface = OpenApi(shared_file("data", "wfx", "wfx.openapi.yml"))
    async with (
        bundle_shelf(bundle_bytes(tmp_path)) as shelf,
        wfx_site(tmp_path, heard.url, prefix=f"p{uuid4().hex[:12]}-", hosts=["127.0.0.1"]) as site,
    ):
        await site.add_node("n1")
        job = await jobs.create(f"{site.prefix}n1", PHASED, shelf.definition())
        for state in ("DOWNLOAD", "INSTALL"):
            await jobs.advance(job.id, state)
            await site.poll()
            await site.deliver()
        await site.say("n1", "proceeding", "none", "written 50%")
        await site.say("n1", "closed", "success", "x" * 2000)
        await site.deliver()
        assert (await jobs.job(job.id)).status.state == "ACTIVATED"
        refused = await jobs.create(f"{site.prefix}n1", DIRECT, {"artifacts": []})
        await site.poll()
        await site.deliver()
        assert (await jobs.job(refused.id)).status.state == "TERMINATED"
    assert {each.method for each in heard.heard} == {"GET", "PUT"}
    for each in heard.heard:
        interface.check(each.method, each.path, asked=each.asked, status=each.status, answered=each.answered)
        assert each.query.keys() <= interface.parameters(each.method, each.path)
