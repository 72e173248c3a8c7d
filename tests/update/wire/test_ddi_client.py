"""Our agent's DDI client against a small server, and against servers that lead it astray."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tests.update.wire.scripted import IMPATIENT, Asked, Scripted, reply, serve, session
from update.digest import digest_of
from update.errors import (
    ConfigurationError,
    EndlessDataError,
    FieldrelayError,
    NotFoundError,
    ProtocolError,
    SlowError,
    UnauthorizedError,
    UnreachableError,
)
from update.wire.assignment import Assignment, Commit
from update.wire.ddi import (
    Chunk,
    Config,
    DeploymentBase,
    DeploymentBody,
    Execution,
    Feedback,
    Finished,
    Handling,
    Link,
    Mode,
    Polling,
    Report,
    Result,
    Root,
    RootLinks,
    Status,
    encode,
)
from update.wire.ddi_client import Cancellation, DdiClient, Deployment, Poll
from update.wire.http import Manner

ASSIGNMENT = Assignment("site", "line/fw.swu", digest_of(b"x"), 8, 3, Commit.COMMIT)
CHUNK = Chunk(part="os", version="1.2", name="fw", metadata=ASSIGNMENT.metadata())
DEPLOYMENT = DeploymentBase(id="8", deployment=DeploymentBody(download=Handling.FORCED, update=Handling.ATTEMPT, chunks=(CHUNK,)))
BASE = "/DEFAULT/controller/v1/node-1"
DONE = Feedback(
    id="8",
    status=Status(execution=Execution.CLOSED, result=Result(finished=Finished.SUCCESS), details=("confirmed",)),
    fieldrelay=Report(report=UUID(int=7), sequence=4, outcome="confirmed", version="1.2", downloaded_bytes=5),
)

Resources = dict[str, Callable[[str], tuple[int, bytes]]]


def root_with(**links: str) -> Callable[[str], tuple[int, bytes]]:
    """A root whose links are given relative to the server's own URL, or absolute."""

    def answer(url: str) -> tuple[int, bytes]:
        found = {name: Link(href=href if "://" in href else url + href) for name, href in links.items()}
        return 200, encode(Root(config=Config(polling=Polling(sleep="00:00:30")), links=RootLinks.model_validate(found)))

    return answer


def having(status: int, body: bytes = b"") -> Callable[[str], tuple[int, bytes]]:
    return lambda _url: (status, body)


async def run(resources: Resources, use: Callable[[DdiClient], Awaitable[object]]) -> tuple[object, Scripted]:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        found = resources.get(f"{asked.method} {asked.target}", having(404))
        status, body = found(server.url)
        reply(writer, status, body)
        await writer.drain()

    async with serve(answer) as server, session() as client:
        return await use(DdiClient(client, server.url, "node-1")), server


async def poll(resources: Resources) -> tuple[Poll, Scripted]:
    found, server = await run(resources, lambda client: client.poll())
    assert isinstance(found, Poll)
    return found, server


async def test_nothing_to_do_is_a_time_to_sleep() -> None:
    found, server = await poll({f"GET {BASE}": root_with()})
    assert found == Poll(30, None, attributes_wanted=False)
    assert server.asked[0].headers["accept"] == "application/json"


async def test_a_deployment_comes_with_its_assignment() -> None:
    found, server = await poll(
        {
            f"GET {BASE}": root_with(deploymentBase=f"{BASE}/deploymentBase/8?c=-17", configData=f"{BASE}/configData"),
            f"GET {BASE}/deploymentBase/8?c=-17": having(200, encode(DEPLOYMENT)),
        }
    )
    assert found == Poll(30, Deployment(8, DEPLOYMENT, ASSIGNMENT), attributes_wanted=True)
    assert [asked.target for asked in server.asked] == [BASE, f"{BASE}/deploymentBase/8?c=-17"]


async def test_a_deployment_of_another_server_has_no_assignment() -> None:
    plain = DEPLOYMENT.model_copy(update={"deployment": DeploymentBody(download=Handling.FORCED, update=Handling.FORCED)})
    found, _ = await poll(
        {
            f"GET {BASE}": root_with(deploymentBase=f"{BASE}/deploymentBase/8"),
            f"GET {BASE}/deploymentBase/8": having(200, encode(plain)),
        }
    )
    assert found.task == Deployment(8, plain, None)


async def test_a_cancellation_goes_before_a_deployment() -> None:
    found, _ = await poll(
        {
            f"GET {BASE}": root_with(deploymentBase=f"{BASE}/deploymentBase/8", cancelAction=f"{BASE}/cancelAction/11"),
            f"GET {BASE}/cancelAction/11": having(200, b'{"id":11,"cancelAction":{"stopId":"8"}}'),
        }
    )
    assert found.task == Cancellation(11, "8")


async def test_what_was_withdrawn_between_two_requests_is_nothing_to_do() -> None:
    found, _ = await poll({f"GET {BASE}": root_with(deploymentBase=f"{BASE}/deploymentBase/8")})
    assert found.task is None


async def test_feedback_and_attributes_are_sent_to_their_resources() -> None:
    resources: Resources = {
        f"POST {BASE}/deploymentBase/8/feedback": having(200),
        f"POST {BASE}/cancelAction/11/feedback": having(200),
        f"PUT {BASE}/configData": having(200),
    }

    async def use(client: DdiClient) -> None:
        await client.feedback(8, DONE)
        await client.feedback(11, DONE, cancel=True)
        await client.config_data({"hw": "board:1"}, Mode.REPLACE)

    _, server = await run(resources, use)
    assert [f"{asked.method} {asked.target}" for asked in server.asked] == list(resources)
    assert Feedback.model_validate_json(server.asked[0].body) == DONE
    assert json.loads(server.asked[2].body) == {"mode": "replace", "data": {"hw": "board:1"}}
    assert server.asked[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotFoundError),
        (410, NotFoundError),
        (401, UnauthorizedError),
        (403, UnauthorizedError),
        (400, ProtocolError),
        (405, ProtocolError),
        (302, ProtocolError),
        (429, UnreachableError),
        (503, UnreachableError),
    ],
)
async def test_a_refused_feedback_says_whether_to_send_it_again(status: int, error: type[FieldrelayError]) -> None:
    with pytest.raises(error):
        await run({f"POST {BASE}/deploymentBase/8/feedback": having(status)}, lambda client: client.feedback(8, DONE))


@pytest.mark.parametrize(
    "href",
    [
        "http://elsewhere.example" + BASE + "/deploymentBase/8",
        "https://127.0.0.1" + BASE + "/deploymentBase/8",
        "http://127.0.0.1:1" + BASE + "/deploymentBase/8",
        "/DEFAULT/controller/v1/node-2/deploymentBase/8",
        BASE + "/deploymentBase/../../node-2/deploymentBase/8",
        BASE + "/deploymentBase/%2e%2e/8",
        BASE + "/deploymentBase/8/feedback",
        BASE + "/deploymentBase/",
        BASE + "/deploymentBase/0",
        BASE + "/deploymentBase/3000000000",
        BASE + "/cancelAction/8",
        "file:///etc/passwd",
    ],
)
async def test_a_link_away_from_the_node_s_own_resource_is_not_followed(href: str) -> None:
    asked: list[str] = []

    def root(url: str) -> tuple[int, bytes]:
        asked.append(url)
        return root_with(deploymentBase=href)(url)

    with pytest.raises(ProtocolError):
        await poll({f"GET {BASE}": root})
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", ProtocolError),
        (b"{}", ProtocolError),
        (b'{"config":{"polling":{"sleep":"99:00:00"}}}', ProtocolError),
        (b"[" * 60_000, ProtocolError),
        (b" " * ((64 << 10) + 1), EndlessDataError),
    ],
)
async def test_a_root_that_is_none_is_refused(document: bytes, error: type[FieldrelayError]) -> None:
    with pytest.raises(error):
        await poll({f"GET {BASE}": having(200, document)})


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (encode(DEPLOYMENT.model_copy(update={"id": "9"})), ProtocolError),
        (encode(DEPLOYMENT.model_copy(update={"id": "x"})), ProtocolError),
        (b" " * ((1 << 20) + 1), EndlessDataError),
        (b'{"id":"8","deployment":{"download":"forced","update":"forced","chunks":"none"}}', ProtocolError),
    ],
)
async def test_a_deployment_that_is_none_is_refused(document: bytes, error: type[FieldrelayError]) -> None:
    with pytest.raises(error):
        await poll(
            {
                f"GET {BASE}": root_with(deploymentBase=f"{BASE}/deploymentBase/8"),
                f"GET {BASE}/deploymentBase/8": having(200, document),
            }
        )


async def test_a_server_that_does_not_answer_is_slow() -> None:
    async def stall(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(stall) as server, session() as client:
        with pytest.raises(SlowError):
            await DdiClient(client, server.url, "node-1", manner=Manner(IMPATIENT)).poll()


async def test_what_cannot_be_sent_is_refused_before_it_is() -> None:
    long = Feedback(status=Status(execution=Execution.CLOSED, result=Result(finished=Finished.NONE), details=("x" * 8000,) * 17))
    with pytest.raises(ProtocolError):
        await run({}, lambda client: client.feedback(8, long))
    with pytest.raises(ConfigurationError):
        await run({}, lambda client: client.config_data({"k": "v" * 2000}))
    with pytest.raises(ProtocolError):
        await run({}, lambda client: client.feedback(0, DONE))


@pytest.mark.parametrize("node", ["", "../x", "a/b", "a b"])
async def test_a_node_name_that_could_change_the_path_is_refused(node: str) -> None:
    async with session() as client:
        with pytest.raises(ConfigurationError):
            DdiClient(client, "http://127.0.0.1:1", node)
