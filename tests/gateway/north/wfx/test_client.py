"""What the client shows, and what it makes of a server that misbehaves."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.north.spacing import Spacing
from gateway.north.wfx.client import LONGEST_IDS, Shown, WfxClient, _fitting
from gateway.north.wfx.messages import JobStatus
from gateway.simulators.wfx import WfxSimulator
from gateway.simulators.wfx_jobs import DIRECT
from tests.builders.bundle_shelf import BundleShelf
from tests.builders.exchanges import listener
from tests.interop.wfx_peer import WfxNorth
from update.errors import (
    FieldrelayError,
    ProtocolError,
    SlowError,
    UnauthorizedError,
    UnreachableError,
    UnsupportedError,
)
from update.wire.http import Manner
from update.wire.rate import Patience

SHOWN = Shown(lambda: {"Authorization": "Bearer of-the-site"}, "X-Client-Id")


def client_of(session: aiohttp.ClientSession, url: str, manner: Manner | None = None) -> WfxClient:
    spacing = Spacing(1000, now=lambda: 0.0)
    return WfxClient(session, url, spacing, SHOWN, manner=manner or Manner(), artifact_hosts=frozenset({"127.0.0.1"}))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as made:
        yield made


@pytest.fixture
async def client(session: aiohttp.ClientSession, simulator: WfxSimulator) -> WfxClient:
    return client_of(session, simulator.south)


async def test_every_request_shows_the_token_and_for_whom_it_is(
    session: aiohttp.ClientSession, simulator: WfxSimulator, jobs: WfxNorth
) -> None:
    job = await jobs.create("n1", DIRECT)
    async with listener(simulator.south) as heard:
        client = client_of(session, heard.url.removesuffix("/api/wfx/v1") + "/")
        await client.open_jobs("n1")
        await client.job("n1", job.id)
        await client.set_status("n1", job.id, JobStatus(state="INSTALLING"))
    shown = {(each.headers["Authorization"], each.headers["X-Client-Id"]) for each in heard.heard}
    assert shown == {("Bearer of-the-site", "n1")}
    assert len(heard.heard) == 3


async def test_the_token_is_shown_to_the_server_itself_alone(client: WfxClient, shelf: BundleShelf) -> None:
    assert (await client.look("n1", f"{shelf.url}/os.swu")).length == len(shelf.content)
    assert shelf.requests == [("HEAD", "")]


async def test_a_certificate_is_shown_to_the_server_itself_alone(simulator: WfxSimulator, session: aiohttp.ClientSession) -> None:
    tls = ssl.create_default_context()
    certified = WfxClient(session, simulator.south, Spacing(1000, now=lambda: 0.0), Shown(tls=tls))
    assert certified._manner_for("n1", f"{simulator.south}/download/os.swu").tls is tls
    certified = WfxClient(
        session, simulator.south, Spacing(1000, now=lambda: 0.0), Shown(tls=tls), artifact_hosts=frozenset({"files.example"})
    )
    assert certified._manner_for("n1", "https://files.example/os.swu").tls is None


async def test_what_it_cannot_do_now_has_a_name(client: WfxClient, simulator: WfxSimulator, jobs: WfxNorth) -> None:
    await jobs.create("n1", DIRECT)
    expected: list[tuple[str, object, type[FieldrelayError]]] = [
        ("failing", 1, UnreachableError),
        ("absent", True, UnreachableError),
        ("forbidding", True, UnauthorizedError),
        ("untrusting", True, UnauthorizedError),
        ("garbage", True, ProtocolError),
    ]
    for fault, value, error in expected:
        setattr(simulator.faults, fault, value)
        with pytest.raises(error):
            await client.open_jobs("n1")
        setattr(simulator.faults, fault, type(value)())
    assert len(await client.open_jobs("n1")) == 1


async def test_a_server_that_does_not_answer_is_slow(session: aiohttp.ClientSession, simulator: WfxSimulator) -> None:
    simulator.faults.held = asyncio.Event()
    impatient = client_of(session, simulator.south, Manner(patience=Patience(answer_s=0.2, deadline_s=0.2)))
    with pytest.raises(SlowError):
        await impatient.open_jobs("n1")
    simulator.faults.held.set()


async def test_a_stream_of_something_else_is_refused(client: WfxClient, simulator: WfxSimulator) -> None:
    for fault in ("garbage", "absent", "forbidding"):
        setattr(simulator.faults, fault, True)
        with pytest.raises((UnreachableError, UnauthorizedError)):
            await anext(client.events(["n1"]))
        setattr(simulator.faults, fault, False)


async def test_a_stream_names_as_many_clients_as_an_address_holds() -> None:
    clients = [f"client-{number:04}" for number in range(2000)]
    named = _fitting(clients)
    assert named == tuple(clients[: len(named)])
    assert LONGEST_IDS - 12 <= len(",".join(named)) <= LONGEST_IDS


@pytest.mark.parametrize("how", ["no HEAD", "no length"])
async def test_a_length_is_found_or_its_want_is_named(client: WfxClient, shelf: BundleShelf, how: str) -> None:
    shelf.heads, shelf.chunked = False, how == "no length"
    if shelf.chunked:
        with pytest.raises(ProtocolError, match="how long"):
            await client.look("n1", f"{shelf.url}/os.swu")
    else:
        assert (await client.look("n1", f"{shelf.url}/os.swu")).length == len(shelf.content)


async def test_a_redirect_leads_to_configured_hosts_only(client: WfxClient, shelf: BundleShelf) -> None:
    shelf.leads_to = shelf.url.replace("127.0.0.1", "localhost") + "/os.swu"
    with pytest.raises(UnsupportedError, match="localhost"):
        await client.look("n1", f"{shelf.url}/os.swu")
