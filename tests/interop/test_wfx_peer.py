"""The real wfx: what its published workflows and its API really do, so that tests may build on it.

Where it differs from what is published: a workflow is taken as JSON only, and what does not fit the schema is refused in plain
text, without the documented list of errors.
"""

from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from tests.interop.wfx_peer import DIRECT, MARKS, PHASED, WfxError, WfxNorth, WfxServer, published_workflow, wfx_north, wfx_server

pytestmark = MARKS

DEFINITION: dict[str, object] = {"version": "1.0", "type": ["firmware"], "artifacts": [{"name": "a", "version": "1", "uri": "u"}]}


class Device:
    """The southbound side of one job."""

    def __init__(self, session: aiohttp.ClientSession, server: WfxServer, job: str) -> None:
        self._session = session
        self._url = f"{server.south}/jobs/{job}/status"

    async def says(self, state: str, **more: object) -> int:
        async with self._session.put(self._url, json={"state": state, **more}) as response:
            return response.status


def client_name() -> str:
    return f"client-{uuid4().hex}"


async def test_a_direct_job_goes_through_all_states_and_activation_is_ordered_by_wfx_itself(
    wfx: WfxServer, jobs: WfxNorth
) -> None:
    job = await jobs.create(client_name(), DIRECT, DEFINITION, ["plant"])
    assert (job.status.state, job.tags, job.definition) == ("INSTALL", ["plant"], DEFINITION)
    async with aiohttp.ClientSession() as session:
        device = Device(session, wfx, job.id)
        for state in ("INSTALLING", "INSTALLED", "ACTIVATING", "ACTIVATED"):
            assert await device.says(state) == 200
    seen = await jobs.job(job.id)
    assert seen.status.state == "ACTIVATED"
    assert seen.states() == ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"], "INSTALLED is passed at once"


async def test_a_phased_job_waits_for_the_operator_before_download_and_before_install(wfx: WfxServer, jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), PHASED, DEFINITION)
    assert job.status.state == "CREATED"
    async with aiohttp.ClientSession() as session:
        device = Device(session, wfx, job.id)
        assert await device.says("DOWNLOAD") == 400, "that step is the operator's"
        assert (await jobs.advance(job.id, "DOWNLOAD")).state == "DOWNLOAD"
        for state in ("DOWNLOADING", "DOWNLOADED"):
            assert await device.says(state) == 200
        assert await device.says("INSTALL") == 400
        await jobs.advance(job.id, "INSTALL")
        for state in ("INSTALLING", "INSTALLED", "ACTIVATING", "ACTIVATED"):
            assert await device.says(state) == 200
        assert await device.says("TERMINATED") == 400, "the end is the end"
    assert (await jobs.job(job.id)).status.state == "ACTIVATED"


async def test_a_status_replaces_the_one_before_as_a_whole(wfx: WfxServer, jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), DIRECT)
    async with aiohttp.ClientSession() as session:
        device = Device(session, wfx, job.id)
        assert await device.says("INSTALLING", progress=40, message="writing") == 200
        assert (await jobs.job(job.id)).status.progress == 40
        assert await device.says("INSTALLING", progress=101) == 400
        assert await device.says("INSTALLING", message="x" * 1025) == 400
        assert await device.says("INSTALLING", message="verifying") == 200
    status = (await jobs.job(job.id)).status
    assert (status.progress, status.message) == (None, "verifying")


async def test_a_final_state_may_be_said_again_but_not_changed(wfx: WfxServer, jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), DIRECT)
    async with aiohttp.ClientSession() as session:
        device = Device(session, wfx, job.id)
        assert await device.says("TERMINATED", message="no space") == 200
        assert await device.says("TERMINATED", message="no space") == 200
        assert await device.says("INSTALLING") == 400


async def test_the_operator_cannot_end_a_job_other_than_by_deleting_it(jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), DIRECT)
    with pytest.raises(WfxError) as refused:
        await jobs.advance(job.id, "TERMINATED")
    assert (refused.value.status, refused.value.code) == (400, "wfx.invalidRequest")


async def test_a_phased_job_is_in_no_group_before_it_is_released(wfx: WfxServer, jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), PHASED)
    async with aiohttp.ClientSession() as session:

        async def is_open() -> bool:
            async with session.get(f"{wfx.south}/jobs?clientId={job.client}&group=OPEN") as response:
                return [each["id"] for each in (await response.json())["content"]] == [job.id]

        assert not await is_open()
        await jobs.advance(job.id, "DOWNLOAD")
        assert await is_open()


async def test_the_south_side_may_neither_create_nor_delete(wfx: WfxServer, jobs: WfxNorth) -> None:
    job = await jobs.create(client_name(), DIRECT)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{wfx.south}/jobs", json={"clientId": "x", "workflow": DIRECT}) as response:
            assert response.status == 403
        async with session.delete(f"{wfx.south}/jobs/{job.id}") as response:
            assert response.status == 403
    assert [each.id for each in await jobs.of_client(job.client)] == [job.id]
    await jobs.delete(job.id)
    assert await jobs.of_client(job.client) == []


async def test_a_refusal_carries_its_code(jobs: WfxNorth) -> None:
    with pytest.raises(WfxError) as unknown:
        await jobs.create(client_name(), "wfx.workflow.that.is.not.there")
    assert (unknown.value.status, unknown.value.code) == (400, "wfx.workflowNotFound")
    with pytest.raises(WfxError) as misfit:
        await jobs.create("", DIRECT)
    assert (misfit.value.status, misfit.value.code) == (400, "")


async def test_a_workflow_that_is_there_is_not_loaded_again(jobs: WfxNorth) -> None:
    await jobs.load_workflow(published_workflow(DIRECT))


async def test_the_events_of_one_client_are_streamed(wfx: WfxServer, jobs: WfxNorth) -> None:
    client = client_name()
    events = f"{wfx.south}/jobs/events?clientIds={client}"
    async with aiohttp.ClientSession() as session, session.get(events) as stream:
        assert (stream.status, stream.content_type) == (200, "text/event-stream")
        await jobs.create(client_name(), DIRECT)
        job = await jobs.create(client, DIRECT)
        line = await stream.content.readline()
        while not line.startswith(b"data:"):
            assert line
            line = await stream.content.readline()
        assert b'"action":"CREATE"' in line
        assert job.id.encode() in line


async def test_jobs_outlive_a_restart_at_the_same_address(tmp_path: Path) -> None:
    with wfx_server(tmp_path) as server:
        async with wfx_north(server) as operator:
            job = await operator.create(client_name(), DIRECT, DEFINITION)
    ports = [URL(url).port or 0 for url in (server.south, server.north)]
    with wfx_server(tmp_path, *ports) as again:
        assert again == server
        async with wfx_north(again) as operator:
            assert (await operator.job(job.id)).definition == DEFINITION
