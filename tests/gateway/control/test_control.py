import asyncio
import os
import socket as sockets
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from gateway.config import PrefetchMode
from gateway.control import messages
from gateway.control.client import ControlClient
from gateway.control.peer import Allowed, Peer, credentials
from gateway.control.server import Control, allowed_peers, control_application, listen
from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.edge import MAX_BODY_BYTES
from gateway.fleet.chosen import ChosenModes, chosen_modes
from gateway.fleet.intervals import Intervals
from gateway.fleet.issuing import Verdict
from gateway.fleet.judgement import Told
from gateway.fleet.nodes import Assigner
from gateway.fleet.progress import Progress
from gateway.fleet.tokens import Tokens
from gateway.status import Status, StoreState
from tests.builders.fleet import Clock, Shelf, register
from update.durable import Disk
from update.errors import (
    ConfigurationError,
    ForbiddenError,
    HardwareError,
    ProtocolError,
    SlowError,
    UnknownTargetError,
    UnreachableError,
)
from update.wire.ddi import Execution, Finished

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class FixedSize:
    """A store of known size."""

    async def state(self) -> StoreState:
        return StoreState(1, 2, 3)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, short enough for a socket's name."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def control(database: Database, shelf: Shelf, clock: Clock) -> Control:
    status = Status(database, shelf, FixedSize(), now=clock, name="gw", version="0.1", intervals=Intervals(10))
    return Control(status, Assigner(database, shelf, clock), Tokens(database, clock), shelf, ChosenModes(database))


async def serve(application: web.Application, socket: Path, allowed: Allowed) -> web.AppRunner:
    runner = web.AppRunner(application)
    await runner.setup()
    await listen(runner, socket, allowed, Disk())
    return runner


@pytest.fixture
async def client(control: Control, folder: Path) -> AsyncIterator[ControlClient]:
    allowed = allowed_peers((), ())
    runner = await serve(control_application([control], allowed), folder / "run" / "control.sock", allowed)
    yield ControlClient(folder / "run" / "control.sock")
    await runner.cleanup()


async def raw(socket: Path, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    async with (
        ClientSession(connector=UnixConnector(str(socket))) as session,
        session.request(method, f"http://gateway{path}", data=body, headers=headers) as response,
    ):
        return response.status, await response.read()


async def test_status_shows_what_runs_and_what_is_wanted(client: ControlClient, database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", "n2")
    await client.assign(messages.AssignRequest(release="1.2", nodes=("n1",), reason="try it"))
    state = await client.status()
    assert (state.name, state.store, [each.name for each in state.repositories]) == ("gw", StoreState(1, 2, 3), ["plant"])
    first, second = state.nodes
    assert first.wanted is not None
    assert (first.wanted.version, first.wanted.state, first.wanted.reason, first.wanted.outcome) == ("1.2", "open", "try it", "")
    assert second.wanted is None
    assert await client.nodes() == state.nodes


async def test_an_order_may_say_how_its_images_are_fetched_beforehand(
    client: ControlClient, database: Database, clock: Clock, shelf: Shelf
) -> None:
    await register(database, clock, "n1")
    wanted = next(info.sha256 for info in shelf.targets("plant") if info.custom.version == "1.2")
    for said, kept in ((None, {}), (PrefetchMode.FULL, {wanted: PrefetchMode.FULL}), (None, {wanted: PrefetchMode.FULL})):
        await client.assign(messages.AssignRequest(release="1.2", nodes=("n1",), prefetch=said))
        async with database.reading() as transaction:
            assert await chosen_modes(transaction) == kept


async def test_the_last_figures_of_the_node_stand_beside_what_is_wanted(
    client: ControlClient, database: Database, clock: Clock
) -> None:
    await register(database, clock, "n1")
    (made,) = await client.assign(messages.AssignRequest(release="1.2", nodes=None))
    told = Told(str(uuid.uuid4()), Execution.PROCEEDING, Finished.NONE, body={"downloaded_bytes": 7})
    await Progress(database, clock).feedback("n1", made.action, told)
    (node,) = await client.nodes()
    assert node.wanted is not None
    assert node.wanted.report == {"downloaded_bytes": 7}


async def test_a_node_that_missed_three_polls_is_late(client: ControlClient, database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    clock.advance(30)
    assert not (await client.nodes())[0].late
    clock.advance(1)
    assert (await client.nodes())[0].late


async def test_an_order_is_booked_under_the_user_that_gave_it(client: ControlClient, database: Database, clock: Clock) -> None:
    await register(database, clock, "n1")
    (made,) = await client.assign(messages.AssignRequest(release="1.2", nodes=None))
    assert (made.verdict, made.node, made.version, made.fence) == (Verdict.ORDERED, "n1", "1.2", 1)
    async with database.reading() as transaction:
        action = await actions.find(transaction, made.action)
    assert action is not None
    assert action.requested_by == f"uid {os.getuid()}"


async def test_a_refusal_comes_back_as_the_error_that_it_was(client: ControlClient, database: Database, clock: Clock) -> None:
    await register(database, clock, "n1", hardware="third:1")
    with pytest.raises(HardwareError, match="node n1 is third:1"):
        await client.assign(messages.AssignRequest(release="1.2", nodes=("n1",)))
    with pytest.raises(UnknownTargetError):
        await client.refresh("elsewhere")


async def test_a_token_works_once_made(client: ControlClient, database: Database, clock: Clock) -> None:
    made = await client.token(messages.TokenRequest(valid_s=60, node="n9", reason="bench"))
    assert made.node == "n9"
    assert await Tokens(database, clock).redeem("n9", made.token)


async def test_a_repository_is_refreshed_on_command(client: ControlClient, shelf: Shelf) -> None:
    assert (await client.refresh("plant")).targets == 3
    assert shelf.refreshed == ["plant"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"release": "1.2"}',
        b'{"release": "", "nodes": null}',
        b'{"release": "1.2", "nodes": []}',
        b'{"release": "1.2", "nodes": "n1"}',
        b'{"release": 12, "nodes": null}',
        b'{"release": "1.2", "nodes": null, "force": true}',
        b'{"release": "\xff", "nodes": null}',
        b"[" * 100_000,
    ],
)
async def test_a_malformed_command_is_refused_and_changes_nothing(
    client: ControlClient, folder: Path, database: Database, clock: Clock, body: bytes
) -> None:
    await register(database, clock, "n1")
    status, answer = await raw(folder / "run" / "control.sock", "POST", messages.ASSIGN, body)
    assert status == 400
    assert messages.REFUSAL.validate_json(answer).code == ProtocolError.code
    async with database.reading() as transaction:
        assert await actions.unfinished(transaction, "n1") == ()


async def test_a_command_above_the_limit_is_refused(client: ControlClient, folder: Path) -> None:
    status, answer = await raw(folder / "run" / "control.sock", "POST", messages.ASSIGN, b" " * (MAX_BODY_BYTES + 1))
    assert (status, messages.REFUSAL.validate_json(answer).code) == (413, "wire.too-large")


async def test_what_is_no_command_is_refused_by_name(client: ControlClient, folder: Path) -> None:
    status, answer = await raw(folder / "run" / "control.sock", "GET", "/v2/status")
    assert (status, messages.REFUSAL.validate_json(answer).code) == (404, "wire.not-found")
    status, answer = await raw(folder / "run" / "control.sock", "DELETE", messages.STATUS)
    assert (status, messages.REFUSAL.validate_json(answer).code) == (405, "wire.protocol")


async def test_a_defect_is_told_without_its_story(database: Database, shelf: Shelf, clock: Clock, folder: Path) -> None:
    status = Status(database, shelf, FixedSize(), now=clock, name="gw", version="0.1", intervals=Intervals(10))
    broken = Control(status, Assigner(database, shelf, clock), Tokens(database, clock), None, ChosenModes(database))  # type: ignore[arg-type]  # the defect
    allowed = allowed_peers((), ())
    runner = await serve(control_application([broken], allowed), folder / "s", allowed)
    answered, answer = await raw(folder / "s", "POST", "/v1/repositories/plant/refresh")
    assert (answered, b"Traceback" in answer, b"NoneType" in answer) == (500, False, False)
    await runner.cleanup()


async def test_a_stranger_is_refused_before_the_command_is_read(control: Control, folder: Path) -> None:
    allowed = Allowed(frozenset({0, 7}), frozenset({50}))
    stranger = Peer(pid=1, uid=NOBODY, gids=frozenset({NOBODY}))
    runner = await serve(control_application([control], allowed, lambda _: stranger), folder / "s", allowed)
    with pytest.raises(ForbiddenError, match="user 65534 may not command"):
        await ControlClient(folder / "s").status()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("uid", "gids", "admitted"),
    [(0, {0}, True), (7, {7}, True), (8, {50}, True), (8, {8, 50}, True), (8, {8}, False), (50, {7}, False)],
)
def test_users_and_groups_are_admitted_as_configured(uid: int, gids: set[int], *, admitted: bool) -> None:
    try:
        Allowed(frozenset({0, 7}), frozenset({50})).check(Peer(1, uid, frozenset(gids)))
    except ForbiddenError:
        assert not admitted
    else:
        assert admitted


def test_root_and_the_gateways_own_user_are_always_admitted() -> None:
    assert allowed_peers((1,), (2,)) == Allowed(frozenset({0, os.geteuid(), 1}), frozenset({2}))


def test_the_kernel_names_the_process_at_the_other_end() -> None:
    here, there = sockets.socketpair(sockets.AF_UNIX)
    with here, there:
        peer = credentials(here)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.gids >= {os.getgid(), *os.getgroups()}


def ask_as(uid: int, socket: Path) -> int:
    """The exit status of a process of user `uid`: the HTTP status that it was answered, less 200."""
    child = os.fork()
    if child:
        return child
    try:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(socket))
            connection.sendall(f"GET {messages.STATUS} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
            answered = int(connection.recv(12)[9:12])
            os._exit(answered - 200)
    except PermissionError:
        os._exit(99)
    finally:
        os._exit(98)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("uids", "gids", "status"), [((), (), 99), ((1,), (), 203), ((NOBODY,), (), 0), ((), (NOBODY,), 0)])
async def test_another_user_of_this_machine_commands_only_where_it_may(
    control: Control, folder: Path, uids: tuple[int, ...], gids: tuple[int, ...], status: int
) -> None:
    allowed = allowed_peers(uids, gids)
    runner = await serve(control_application([control], allowed), folder / "s", allowed)
    child = ask_as(NOBODY, folder / "s")
    _, ended = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(ended) == status
    await runner.cleanup()


async def test_commands_that_come_by_tcp_are_refused(control: Control) -> None:
    runner = web.AppRunner(control_application([control], allowed_peers((), ())))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with ClientSession() as session, session.get(f"http://{host}:{port}{messages.STATUS}") as response:
        assert response.status == 403
    await runner.cleanup()


async def test_a_socket_left_behind_by_a_crash_is_replaced(control: Control, folder: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as left:
        left.bind(str(folder / "s"))
    allowed = allowed_peers((), ())
    runner = await serve(control_application([control], allowed), folder / "s", allowed)
    assert (await ControlClient(folder / "s").status()).name == "gw"
    await runner.cleanup()


@pytest.mark.parametrize("name", ["x" * 200, "taken/s"])
async def test_a_socket_that_cannot_be_opened_is_a_configuration_error(control: Control, folder: Path, name: str) -> None:
    (folder / "taken" / "s").mkdir(parents=True)
    allowed = allowed_peers((), ())
    runner = web.AppRunner(control_application([control], allowed))
    await runner.setup()
    with pytest.raises(ConfigurationError, match=r"control\.socket"):
        await listen(runner, folder / name, allowed, Disk())
    await runner.cleanup()


async def test_no_gateway_is_said_so(folder: Path) -> None:
    with pytest.raises(UnreachableError, match="gateway serve"):
        await ControlClient(folder / "nothing").status()


async def test_something_else_behind_the_socket_is_named(folder: Path) -> None:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get(messages.STATUS, hello)
    allowed = allowed_peers((), ())
    runner = await serve(application, folder / "s", allowed)
    with pytest.raises(ProtocolError, match="not answer like a gateway"):
        await ControlClient(folder / "s").status()
    await runner.cleanup()


async def test_a_gateway_that_does_not_answer_is_named(folder: Path) -> None:
    enough = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await enough.wait()
        return web.Response()

    application = web.Application()
    application.router.add_get(messages.STATUS, hang)
    allowed = allowed_peers((), ())
    runner = await serve(application, folder / "s", allowed)
    with pytest.raises(SlowError):
        await ControlClient(folder / "s", timeout_s=0.2).status()
    enough.set()
    await runner.cleanup()
