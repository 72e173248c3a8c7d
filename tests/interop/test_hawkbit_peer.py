"""The real hawkBit: what it really answers, so that tests and the gateway may build on it.

Where release 0.3.0M7 differs from what newer ones publish: a feedback without `id` is not found; what is closed can still be
read at deploymentBase (only the root tells that it is closed); CBOR has another form of links than JSON; artifacts have an
ETag without quotes, several ranges an answer without the empty line after the head of a part; no `installedBase`, no
`confirmationBase`.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import cbor2
import pytest

from tests.interop.hawkbit_management import GATEWAY_TOKEN, Kind, Management, ManagementError, Window, management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer, hawkbit_server
from update.errors import NotFoundError, UnauthorizedError
from update.wire.ddi import Execution, Feedback, Finished, Result, Status
from update.wire.ddi_client import Cancellation, DdiClient, Deployment

pytestmark = MARKS

CONTENT = b"a bundle of 26 characters."


def name_of(kind: str) -> str:
    return f"{kind}-{uuid4().hex}"


@asynccontextmanager
async def device(
    server: HawkbitServer, target: str, credential: str = f"GatewayToken {GATEWAY_TOKEN}"
) -> AsyncIterator[DdiClient]:
    async with aiohttp.ClientSession(headers={"Authorization": credential}) as session:
        yield DdiClient(session, server.url, target)


def feedback(action: int, execution: Execution, finished: Finished = Finished.NONE, *details: str) -> Feedback:
    status = Status(execution=execution, result=Result(finished=finished), details=details or None)
    return Feedback(id=str(action), status=status)


async def a_set(operator: Management) -> int:
    return await operator.publish(name_of("firmware"), "1.2", "plant.swu", CONTENT)


async def task_of(server: HawkbitServer, target: str) -> Deployment | Cancellation | None:
    async with device(server, target) as client:
        return (await client.poll()).task


async def next_action(server: HawkbitServer, target: str) -> int:
    """The deployment that a rollout gives to a target, once it does."""
    deadline = time.monotonic() + 60
    while not isinstance(task := await task_of(server, target), Deployment):
        assert time.monotonic() < deadline, f"{target} got no deployment"
        await asyncio.sleep(0.1)
    return task.action


async def get(server: HawkbitServer, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    sent = {"Authorization": f"GatewayToken {GATEWAY_TOKEN}", **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with (
        aiohttp.ClientSession(headers=sent) as session,
        session.get(f"{server.url}/DEFAULT/controller/v1/{path}") as response,
    ):
        return response.status, response.headers, await response.read()


async def test_an_assignment_appears_to_the_gateway_and_its_feedback_closes_it(
    hawkbit: HawkbitServer, operator: Management
) -> None:
    target, number = name_of("node"), await a_set(operator)
    async with device(hawkbit, target) as client:
        first = await client.poll()
        assert (first.task, first.attributes_wanted) == (None, True), "an unknown target is registered by its first poll"
        await client.config_data({"hw_revision": "2"})
        assert not (await client.poll()).attributes_wanted
        assert await operator.attributes(target) == {"hw_revision": "2"}

        action = await operator.assign(target, number)
        task = (await client.poll()).task
        assert isinstance(task, Deployment)
        (chunk,) = task.document.deployment.chunks
        (artifact,) = chunk.artifacts
        assert (task.action, artifact.filename, artifact.size) == (action, "plant.swu", len(CONTENT))
        assert artifact.hashes.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert (await operator.target(target)).update_status == "pending"

        await client.feedback(action, feedback(action, Execution.PROCEEDING, Finished.NONE, "half of it"))
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS, "all of it"))
        assert (await client.poll()).task is None
    assert (await operator.action(target, action)).status == "finished"
    assert (await operator.target(target)).update_status == "in_sync"
    assert await operator.installed_set(target) == await operator.assigned_set(target) == number
    entries = await operator.history(target, action)
    assert [entry.type for entry in entries] == ["running", "retrieved", "running", "finished"]
    assert "all of it" in entries[-1].messages


async def test_a_failure_is_an_error_with_its_words_and_installs_nothing(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    async with device(hawkbit, target) as client:
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.FAILURE, "rolled back"))
    assert (await operator.target(target)).update_status == "error"
    assert await operator.installed_set(target) is None
    entry = (await operator.history(target, action))[-1]
    assert (entry.type, "rolled back" in entry.messages) == ("error", True)


async def test_a_target_token_opens_its_own_target_only(hawkbit: HawkbitServer, operator: Management) -> None:
    own, other = await operator.create_target(name_of("node")), await operator.create_target(name_of("node"))
    async with device(hawkbit, own.name, f"TargetToken {own.token}") as client:
        assert (await client.poll()).task is None
    for credential in (f"TargetToken {other.token}", "GatewayToken wrong", "TargetToken "):
        async with device(hawkbit, own.name, credential) as client:
            with pytest.raises(UnauthorizedError):
                await client.poll()


@pytest.mark.parametrize(
    ("kind", "forced_in_s", "words"),
    [
        (Kind.FORCED, None, ("forced", "forced")),
        (Kind.SOFT, None, ("attempt", "attempt")),
        (Kind.TIME_FORCED, 3600, ("attempt", "attempt")),
        (Kind.TIME_FORCED, -3600, ("forced", "forced")),
        (Kind.DOWNLOAD_ONLY, None, ("forced", "skip")),
    ],
)
async def test_how_urgent_it_is_decides_what_is_linked(
    hawkbit: HawkbitServer, operator: Management, kind: Kind, forced_in_s: int | None, words: tuple[str, str]
) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    at = None if forced_in_s is None else int((time.time() + forced_in_s) * 1000)
    action = await operator.assign(target, number, kind, forced_at_ms=at)
    async with device(hawkbit, target) as client:
        task = (await client.poll()).task
        assert isinstance(task, Deployment)
        assert (task.document.deployment.download, task.document.deployment.update) == words
        if kind is Kind.DOWNLOAD_ONLY:
            await client.feedback(action, feedback(action, Execution.DOWNLOADED))
            assert (await client.poll()).task is None
            assert (await operator.action(target, action)).status == "finished"


async def test_outside_its_window_an_update_may_be_fetched_but_not_installed(
    hawkbit: HawkbitServer, operator: Management
) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    opens = datetime.now(UTC) + timedelta(days=2)
    schedule = f"{opens.second} {opens.minute} {opens.hour} {opens.day} {opens.month} ? {opens.year}"
    await operator.assign(target, number, window=Window(schedule, "00:10:00"))
    async with device(hawkbit, target) as client:
        task = (await client.poll()).task
    assert isinstance(task, Deployment)
    deployment = task.document.deployment
    assert (deployment.download, deployment.update, deployment.maintenance_window) == ("forced", "skip", "unavailable")


async def test_a_cancellation_replaces_the_deployment_until_it_is_answered(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    await operator.cancel(target, action)
    async with device(hawkbit, target) as client:
        task = (await client.poll()).task
        assert isinstance(task, Cancellation)
        assert (task.action, task.stop) == (action, str(action))
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS), cancel=True)
        assert (await client.poll()).task is None
    assert [entry.type for entry in await operator.history(target, action)][-1] == "canceled"


async def test_a_refused_cancellation_brings_the_deployment_back(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    await operator.cancel(target, action)
    async with device(hawkbit, target) as client:
        await client.feedback(action, feedback(action, Execution.REJECTED, Finished.NONE, "too late"), cancel=True)
        assert isinstance((await client.poll()).task, Deployment)
    assert [entry.type for entry in await operator.history(target, action)][-2:] == ["cancel_rejected", "retrieved"]


async def test_a_newer_assignment_first_cancels_the_older(hawkbit: HawkbitServer, operator: Management) -> None:
    target = name_of("node")
    await operator.create_target(target)
    older = await operator.assign(target, await a_set(operator))
    newer = await operator.assign(target, await a_set(operator))
    async with device(hawkbit, target) as client:
        cancelled = (await client.poll()).task
        assert isinstance(cancelled, Cancellation)
        assert cancelled.action == older
        await client.feedback(older, feedback(older, Execution.CLOSED, Finished.SUCCESS), cancel=True)
        task = (await client.poll()).task
        assert isinstance(task, Deployment)
        assert task.action == newer


async def test_attributes_are_asked_for_again_after_a_success(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    async with device(hawkbit, target) as client:
        with pytest.raises(NotFoundError):
            await client.config_data({"version": "1.1"})
        assert (await client.poll()).attributes_wanted, "only this registers a target"
        await client.config_data({"version": "1.1"})
        assert not (await client.poll()).attributes_wanted
        action = await operator.assign(target, number)
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS))
        assert (await client.poll()).attributes_wanted


async def test_an_unanswered_cancellation_can_be_forced_and_its_action_is_gone(
    hawkbit: HawkbitServer, operator: Management
) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    with pytest.raises(ManagementError):
        await operator.cancel(target, action, force=True)
    await operator.cancel(target, action)
    await operator.cancel(target, action, force=True)
    async with device(hawkbit, target) as client:
        assert (await client.poll()).task is None
        with pytest.raises(NotFoundError):
            await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS))


async def test_a_rollout_reaches_its_second_group_only_after_the_first(hawkbit: HawkbitServer, operator: Management) -> None:
    prefix, number = name_of("plant"), await a_set(operator)
    targets = [(await operator.create_target(f"{prefix}-{index}")).name for index in range(2)]
    created = await operator.create_rollout(prefix, number, f"controllerId=={prefix}-*", groups=2)
    ready = await operator.rollout_is(created.id, "ready")
    assert ready.total_targets == 2
    await operator.start_rollout(created.id)
    await operator.rollout_is(created.id, "running")
    for turn, target in enumerate(targets):
        action = await next_action(hawkbit, target)
        assert [await task_of(hawkbit, later) for later in targets[turn + 1 :]] == [None] * (1 - turn)
        async with device(hawkbit, target) as client:
            await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS))
    await operator.rollout_is(created.id, "finished")


async def test_a_closed_action_takes_no_more_feedback_but_can_still_be_read(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    async with device(hawkbit, target) as client:
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS))
        with pytest.raises(NotFoundError):
            await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS))
    assert (await get(hawkbit, f"{target}/deploymentBase/{action}"))[0] == 200
    kinds = [entry.type for entry in await operator.history(target, action)]
    assert kinds.count("finished") == 1


async def test_closed_with_no_result_counts_as_success(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    async with device(hawkbit, target) as client:
        await client.feedback(action, feedback(action, Execution.CLOSED, Finished.NONE))
    assert await operator.installed_set(target) == number


async def test_a_feedback_without_id_is_not_found_and_changes_nothing(hawkbit: HawkbitServer, operator: Management) -> None:
    target, number = name_of("node"), await a_set(operator)
    await operator.create_target(target)
    action = await operator.assign(target, number)
    async with device(hawkbit, target) as client:
        with pytest.raises(NotFoundError):
            await client.feedback(action, feedback(action, Execution.CLOSED, Finished.SUCCESS).model_copy(update={"id": None}))
        assert isinstance((await client.poll()).task, Deployment)


async def test_an_artifact_is_served_in_ranges_of_a_form_of_its_own(hawkbit: HawkbitServer, operator: Management) -> None:
    target = name_of("node")
    module = await operator.create_module(name_of("firmware"), "1")
    artifact = await operator.upload(module, "plant.swu", CONTENT)
    await operator.create_target(target)
    await operator.assign(target, await operator.create_set(name_of("set"), "1", [module]))
    path = f"{target}/softwaremodules/{module}/artifacts/plant.swu"
    status, headers, body = await get(hawkbit, path)
    assert (status, body, headers["ETag"]) == (200, CONTENT, artifact.hashes["sha1"]), "no quotes around the tag"
    assert headers["Content-Range"] == f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", "also where no range was asked for"
    status, headers, body = await get(hawkbit, path, Range="bytes=2-7")
    assert (status, body) == (206, CONTENT[2:8])
    status, _, body = await get(hawkbit, path, Range="bytes=0-1,4-5")
    assert (status, b"\r\n\r\n" in body) == (206, False), "no empty line between head and content of a part"
    assert (await get(hawkbit, path, Range=f"bytes={len(CONTENT)}-"))[0] == 416
    assert (await get(hawkbit, f"{path}.MD5SUM"))[2] == f"{artifact.hashes['md5']}  plant.swu".encode()


async def test_cbor_has_no_links_in_the_form_of_json(hawkbit: HawkbitServer, operator: Management) -> None:
    target = await operator.create_target(name_of("node"))
    status, headers, body = await get(hawkbit, target.name, Accept="application/cbor")
    assert (status, headers["Content-Type"]) == (200, "application/cbor")
    root = cbor2.loads(body)
    assert "_links" not in root
    assert [link["rel"] for link in root["links"]] == ["configData"]


@pytest.mark.parametrize("resource", ["installedBase/1", "confirmationBase"])
async def test_what_came_with_later_releases_is_not_there(hawkbit: HawkbitServer, operator: Management, resource: str) -> None:
    target = await operator.create_target(name_of("node"))
    assert (await get(hawkbit, f"{target.name}/{resource}"))[0] == 404


async def test_the_polling_interval_is_the_tenants(hawkbit: HawkbitServer, operator: Management) -> None:
    before = await operator.setting("pollingTime")
    await operator.configure("pollingTime", "00:00:07")
    try:
        async with device(hawkbit, name_of("node")) as client:
            assert (await client.poll()).sleep_s == 7
    finally:
        await operator.configure("pollingTime", before)


async def test_an_open_action_outlives_a_restart_at_the_same_address(tmp_path: Path) -> None:
    with hawkbit_server(tmp_path) as server:
        async with management(server) as operator:
            await operator.admit_devices()
            await operator.create_target("node")
            action = await operator.assign("node", await a_set(operator))
    with hawkbit_server(tmp_path, {"server.port": server.url.rpartition(":")[2]}) as again:
        assert again == server
        task = await task_of(again, "node")
    assert isinstance(task, Deployment)
    assert task.action == action
