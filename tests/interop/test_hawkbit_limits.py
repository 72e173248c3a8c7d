"""The real hawkBit at its limits, which are made small here: what a refusal looks like, and what is lost with it.

- A full history refuses the final feedback, too: whoever relays must keep an entry in reserve.
- Every request for an artifact, each range of it too, is an entry of that history; so is every look at the deployment that
  follows a feedback.
- A message counts once for every 512 characters or part of them.
- One message or attribute too many, or an attribute's value of more than 128 characters, refuses the whole message.
- The filter against floods answers 429 without saying when to come back. It lets private networks and loopback pass unless it
  is told otherwise.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.interop.hawkbit_management import GATEWAY_TOKEN, Management, management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer, hawkbit_server

pytestmark = MARKS

_DOS = "hawkbit.server.security.dos"
LIMITS = {
    f"{_DOS}.maxStatusEntriesPerAction": "4",
    f"{_DOS}.maxMessagesPerActionStatus": "3",
    f"{_DOS}.maxAttributeEntriesPerTarget": "2",
    f"{_DOS}.filter.whitelist": "nobody",
    f"{_DOS}.filter.maxRead": "20",
    f"{_DOS}.filter.maxWrite": "1000",
}
BURST = 150
ROUNDS = 20


class Device:
    """The plain requests of one target."""

    def __init__(self, session: aiohttp.ClientSession, server: HawkbitServer, name: str) -> None:
        self._session = session
        self._url = f"{server.url}/DEFAULT/controller/v1/{name}"
        self.name = name

    async def report(self, action: int, execution: str, finished: str, *details: str) -> tuple[int, str]:
        status = {"execution": execution, "result": {"finished": finished}, "details": details}
        return await self._send("POST", f"deploymentBase/{action}/feedback", {"id": str(action), "status": status})

    async def describe(self, **attributes: str) -> tuple[int, str]:
        return await self._send("PUT", "configData", {"mode": "merge", "data": attributes})

    async def poll(self) -> tuple[int, str | None]:
        async with self._session.get(self._url) as response:
            return response.status, response.headers.get("Retry-After")

    async def look(self, action: int) -> int:
        async with self._session.get(f"{self._url}/deploymentBase/{action}") as response:
            return response.status

    async def fetch(self, path: str, first: int) -> int:
        async with self._session.get(f"{self._url}/{path}", headers={"Range": f"bytes={first}-{first}"}) as response:
            return response.status

    async def _send(self, method: str, path: str, body: object) -> tuple[int, str]:
        async with self._session.request(method, f"{self._url}/{path}", json=body) as response:
            code = (await response.json())["errorCode"] if response.status >= 400 else ""
            return response.status, code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HawkbitServer]:
    with hawkbit_server(tmp_path_factory.mktemp("hawkbit"), LIMITS) as found:
        yield found


@pytest.fixture
async def operator(server: HawkbitServer) -> AsyncIterator[Management]:
    async with management(server) as found:
        await found.admit_devices()
        yield found


@pytest.fixture
async def device(server: HawkbitServer, request: pytest.FixtureRequest) -> AsyncIterator[Device]:
    async with aiohttp.ClientSession(headers={"Authorization": f"GatewayToken {GATEWAY_TOKEN}"}) as session:
        yield Device(session, server, request.node.name)


async def assigned(operator: Management, device: Device) -> int:
    await operator.create_target(device.name)
    return await operator.assign(device.name, await operator.publish(device.name, "1", "plant.swu", b"content"))


async def test_a_full_history_refuses_also_the_final_result(operator: Management, device: Device) -> None:
    action = await assigned(operator, device)
    full = (403, "hawkbit.server.error.quota.tooManyEntries")
    for _ in range(3):
        assert await device.report(action, "proceeding", "none", "more") == (200, "")
    assert await device.report(action, "proceeding", "none", "more") == full
    assert await device.report(action, "closed", "success") == full
    assert (await operator.action(device.name, action)).status == "pending"
    assert await operator.installed_set(device.name) is None


async def test_ranges_of_an_artifact_fill_the_history(operator: Management, device: Device) -> None:
    module = await operator.create_module(device.name, "1")
    await operator.upload(module, "plant.swu", b"content")
    await operator.create_target(device.name)
    action = await operator.assign(device.name, await operator.create_set(device.name, "1", [module]))
    fetched = [await device.fetch(f"softwaremodules/{module}/artifacts/plant.swu", first) for first in range(4)]
    assert fetched == [206, 206, 206, 403]
    assert await device.report(action, "closed", "success") == (403, "hawkbit.server.error.quota.tooManyEntries")
    assert [entry.type for entry in await operator.history(device.name, action)] == ["running", *["download"] * 3]


async def test_looking_at_the_deployment_between_feedbacks_fills_the_history(operator: Management, device: Device) -> None:
    action = await assigned(operator, device)
    assert [await device.look(action) for _ in range(3)] == [200, 200, 200]
    assert (await device.report(action, "proceeding", "none", "half"))[0] == 200
    assert await device.look(action) == 200
    assert [entry.type for entry in await operator.history(device.name, action)] == [
        "running",
        "retrieved",
        "running",
        "retrieved",
    ]
    assert await device.report(action, "closed", "success") == (403, "hawkbit.server.error.quota.tooManyEntries")
    assert await device.look(action) == 200


async def test_one_message_too_many_refuses_the_whole_feedback(operator: Management, device: Device) -> None:
    action = await assigned(operator, device)
    assert (await device.report(action, "proceeding", "none", "1", "2", "3", "4"))[0] == 403
    assert [entry.type for entry in await operator.history(device.name, action)] == ["running"]
    assert (await device.report(action, "proceeding", "none", "1", "2", "3"))[0] == 200


async def test_a_long_message_is_cut_into_pieces_that_each_count(operator: Management, device: Device) -> None:
    action = await assigned(operator, device)
    assert (await device.report(action, "proceeding", "none", "x" * 1100))[0] == 200
    messages = (await operator.history(device.name, action))[-1].messages
    assert sorted(len(message or "") for message in messages) == [76, 512, 512]
    assert (await device.report(action, "proceeding", "none", "x" * 1100, "y"))[0] == 403


async def test_one_attribute_too_many_or_too_long_refuses_them_all(operator: Management, device: Device) -> None:
    await operator.create_target(device.name)
    assert await device.describe(a="1", b="2", c="3") == (403, "hawkbit.server.error.quota.tooManyEntries")
    assert await device.describe(a="1", b="x" * 129) == (400, "hawkbit.server.error.repo.invalidTargetAttributes")
    assert await operator.attributes(device.name) == {}
    assert await device.describe(a="1", b="x" * 128) == (200, "")


async def test_a_flood_is_answered_with_429_that_does_not_say_when_to_come_back(operator: Management, device: Device) -> None:
    await operator.create_target(device.name)
    seen: set[tuple[int, str | None]] = set()
    for _ in range(ROUNDS):
        seen.update(await asyncio.gather(*(device.poll() for _ in range(BURST))))
        if seen != {(200, None)}:
            break
    assert seen == {(200, None), (429, None)}
