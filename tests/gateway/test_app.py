"""The whole gateway: set up by `init`, with a repository of its own, over real TLS, commanded by its socket."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from gateway.app import Listening, run
from gateway.cli.main import main
from gateway.cli.output import show_status
from gateway.config import ContentSection, GatewayConfig, StateFolder, StoreSection, load_config
from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest, TokenRequest
from gateway.north.upstream import Mirror
from gateway.sections.routes import RouteKind, RouteSection
from gateway.setup import Wishes, set_up
from tests.builders.mirrored_site import FileUpstream, upstream
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk
from update.errors import BusyError, ConfigurationError, FloorError, FormatVersionError, StateError, UnauthorizedError
from update.identity import Hardware
from update.trust.signers import load_private_key
from update.wire.attributes import NodeFacts
from update.wire.authority import make_csr, write_certificate
from update.wire.boot_proof import BootProof
from update.wire.ddi import Execution, Feedback, Finished, Report, Result, Status
from update.wire.ddi_client import DdiClient, Deployment
from update.wire.est import enroll
from update.wire.http import Manner
from update.wire.tls import GATEWAY_IDENTITY, client_context

# Whatever announces itself on loopback meanwhile would be tried, too.
pytestmark = pytest.mark.xdist_group("mdns")

BOARD = Hardware("board", "1")
BUNDLE = b"the bundle of 1.2" * 1000


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway that is set up, and its upstream in a folder."""

    folder: Path
    config: GatewayConfig

    @property
    def operator(self) -> ControlClient:
        return ControlClient(self.config.control.socket)

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[Listening]:
        """Run the gateway in this process."""
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        config = replace(self.config, **changes)  # type: ignore[arg-type]  # sections by their names
        task = asyncio.create_task(run(config, Disk(), now=now, stop=stop, ready=ready.set_result))
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield await ready
        finally:
            stop.set()
            await task

    async def start_and_fail(self, **changes: object) -> None:
        async with self.running(**changes):
            pytest.fail("it started")

    @asynccontextmanager
    async def node(self, name: str, listening: Listening, token: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
        """A node at its first contact: it enrols, and comes back with its certificate."""
        url, ca = f"https://127.0.0.1:{listening.port}", StateFolder(self.config.gateway.state).authority[0]
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context(ca))) as stranger:
            issued = await enroll(stranger, url, name, token, make_csr(Disk(), key, name))
        write_certificate(Disk(), certificate, issued[0])
        context = client_context(ca, certificate=certificate, key=key)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield session, url

    def key_of(self, name: str) -> EllipticCurvePrivateKey:
        """The key of a node that has enrolled."""
        key = load_private_key(self.folder / f"{name}.key")
        assert isinstance(key, EllipticCurvePrivateKey)
        return key


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def site(short: Path) -> Site:
    upstream = short / "upstream"
    builder = RepositoryBuilder(now=now())
    builder.add_target("os/board-1.2.txt", b"no bundle", {"hwIds": ["board:1"], "version": "1.2"})
    builder.add_target("os/board-1.2.swu", BUNDLE, {"hwIds": ["board:1"], "version": "1.2"})
    builder.publish()
    builder.write_to(upstream)
    (short / "root.json").write_bytes(builder.root_bytes)
    wishes = Wishes(short / "gateway.toml", "gw", short / "state", short / "s", free_port(), interfaces=("127.0.0.1",))
    await set_up(wishes, Disk(), now())
    with wishes.file.open("a") as file:
        file.write('\n[[repository]]\nname = "plant"\nroot = "root.json"\nupstreams = ["upstream"]\n')
    text = wishes.file.read_text().replace("[south]\n", '[south]\naddresses = ["127.0.0.1"]\n')
    wishes.file.write_text(text)
    return Site(short, load_config(wishes.file))


async def mirrored(site: Site) -> None:
    assert (await site.operator.refresh("plant")).problem == ""


async def test_a_node_comes_from_its_token_to_a_confirmed_release(site: Site) -> None:
    async with site.running() as listening:
        await mirrored(site)
        token = (await site.operator.token(TokenRequest(valid_s=60, node="n1"))).token
        async with site.node("n1", listening, token) as (session, url):
            agent = DdiClient(session, url, "n1", manner=Manner(server_hostname=GATEWAY_IDENTITY))
            poll = await agent.poll()
            assert (poll.task, poll.attributes_wanted) == (None, True)
            await agent.config_data(NodeFacts(BOARD, "1.1", None, "a").attributes())
            (made,) = await site.operator.assign(AssignRequest(release="1.2", nodes=None, reason="first"))
            poll = await agent.poll()
            assert isinstance(poll.task, Deployment)
            link = poll.task.document.deployment.chunks[0].artifacts[0].links.download
            assert link is not None
            async with session.get(link.href, server_hostname=GATEWAY_IDENTITY) as response:
                assert await response.read() == BUNDLE
            async with session.get(f"{url}/repositories/plant/metadata/1.root.json", server_hostname=GATEWAY_IDENTITY) as root:
                assert await root.read() == (site.folder / "root.json").read_bytes()
            proof = BootProof("n1", made.action, made.fence, "1.2", "b", "", "boot-2")
            report = Report(
                report=uuid.uuid4(),
                sequence=1,
                fence=made.fence,
                outcome="confirmed",
                version="1.2",
                slot="b",
                boot_id="boot-2",
                proof=proof.sign(site.key_of("n1")),
            )
            status = Status(execution=Execution.CLOSED, result=Result(finished=Finished.SUCCESS))
            await agent.feedback(made.action, Feedback(status=status, fieldrelay=report))
        (node,) = await site.operator.nodes()
        assert node.wanted is not None
        assert (node.running.version, node.running.slot, node.wanted.outcome) == ("1.2", "b", "success")


async def test_a_node_is_sent_content_as_fast_as_configured(site: Site) -> None:
    loop = asyncio.get_running_loop()
    async with site.running(south=replace(site.config.south, node_bytes_per_s=16384)) as listening:
        await mirrored(site)
        token = (await site.operator.token(TokenRequest(valid_s=60, node="n1"))).token
        async with site.node("n1", listening, token) as (session, url):
            path = next(Path(site.folder / "upstream").glob("targets/**/*board-1.2.swu")).relative_to(site.folder / "upstream")
            began_s = loop.time()
            async with session.get(f"{url}/repositories/plant/{path}", server_hostname=GATEWAY_IDENTITY) as response:
                assert await response.read() == BUNDLE
    # A lower bound only: what goes beyond the burst of a quarter of a second has to wait.
    assert loop.time() - began_s >= (len(BUNDLE) - 16384 // 4) / 16384 - 0.05


async def test_a_token_opens_the_door_once(site: Site) -> None:
    async with site.running() as listening:
        token = (await site.operator.token(TokenRequest(valid_s=60))).token
        async with site.node("n1", listening, token):
            pass
        with pytest.raises(UnauthorizedError):
            async with site.node("n2", listening, token):
                pass


async def test_after_a_restart_everything_is_as_it_was_also_without_upstream(site: Site) -> None:
    async with site.running() as listening:
        await mirrored(site)
        token = (await site.operator.token(TokenRequest(valid_s=60))).token
        async with site.node("n1", listening, token) as (session, url):
            agent = DdiClient(session, url, "n1", manner=Manner(server_hostname=GATEWAY_IDENTITY))
            await agent.poll()
            await agent.config_data(NodeFacts(BOARD).attributes())
            await site.operator.assign(AssignRequest(release="1.2", nodes=("n1",)))
        before = await site.operator.nodes()
    (site.folder / "upstream").rename(site.folder / "away")
    async with site.running():
        state = await site.operator.status()
    assert state.nodes == before
    assert [(each.name, each.targets) for each in state.repositories] == [("plant", 2)]
    assert state.store.used_bytes >= len(BUNDLE)


async def test_nodes_are_served_once_what_is_on_disk_is_shown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[str] = []
    restore = Mirror.restore

    async def slowly(mirror: Mirror) -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        await restore(mirror)
        restored.append(mirror.name)

    monkeypatch.setattr(Mirror, "restore", slowly)
    async with site.running():
        assert restored == ["plant"]


async def test_a_bundle_that_its_own_signers_do_not_prove_is_not_offered(site: Site) -> None:
    roots = (StateFolder(site.config.gateway.state).authority[0],)
    async with site.running(repository=(replace(site.config.repository[0], cms_roots=roots),)):
        state = await site.operator.refresh("plant")
    assert (state.targets, state.code) == (1, "bundle.container")


async def test_what_there_is_no_room_for_is_not_fetched(site: Site) -> None:
    async with site.running(store=StoreSection(quota_bytes=10)):
        state = await site.operator.refresh("plant")
    assert (state.targets, state.code) == (1, "store.no-space")


async def test_stock_clients_get_content_only_where_it_was_switched_on(site: Site) -> None:
    content = ContentSection(enabled=True, addresses=("127.0.0.1",), port=free_port())
    async with site.running(south=replace(site.config.south, content=content)):
        await mirrored(site)
        (name,) = [path.name for path in (site.folder / "state" / "store").rglob("*.swu")]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{content.port}") as session:
            async with session.get(f"/targets/os/{name}", headers={"Host": "plant"}) as response:
                assert await response.read() == BUNDLE
            async with session.get("/DEFAULT/controller/v1/n1") as response:
                assert response.status == 404


@pytest.mark.parametrize("peers", [False, True])
async def test_other_gateways_get_whole_repositories_only_where_it_was_switched_on(site: Site, peers: bool) -> None:
    content = ContentSection(enabled=True, peers=peers, addresses=("127.0.0.1",), port=free_port())
    async with site.running(south=replace(site.config.south, content=content)):
        await mirrored(site)
        (name,) = [path.name for path in (site.folder / "state" / "store").rglob("*.swu")]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{content.port}") as session:
            for path in ("metadata/timestamp.json", f"targets/os/{name}"):
                async with session.get(f"/repositories/plant/{path}") as response:
                    assert response.status == (200 if peers else 404)
                async with session.put(f"/repositories/plant/{path}") as response:
                    assert response.status == 405


async def test_a_mirrored_route_is_served_from_what_an_earlier_run_kept(site: Site) -> None:
    content = ContentSection(enabled=True, addresses=("127.0.0.1",), port=free_port())
    south = replace(site.config.south, content=content)
    address = f"http://127.0.0.1:{content.port}"
    async with upstream(FileUpstream({"refs/heads/main": b"commit"})) as origin:
        route = RouteSection(name="os", prefix="/ostree/", upstream=origin.url, kind=RouteKind.OSTREE, revalidate_s=0)
        async with (
            site.running(south=south, route=(route,)),
            aiohttp.request("GET", f"{address}/ostree/refs/heads/main") as response,
        ):
            assert await response.read() == b"commit"
    async with site.running(south=south, route=(route,)), aiohttp.ClientSession(address) as session:
        async with session.get("/ostree/refs/heads/main") as response:
            assert (response.status, await response.read()) == (200, b"commit")
        async with session.get("/ostree/refs/heads/other") as response:
            assert (response.status, (await response.json())["code"]) == (502, "wire.unreachable")
        (state,) = (await site.operator.status()).routes
        assert (state.name, state.objects, state.used_bytes, state.stale_answers) == ("os", 1, 6, 1)
        assert state.served
        assert "cannot be reached" in state.trouble
        assert state.trouble in show_status(await site.operator.status())
        async with session.get("/elsewhere/refs/heads/main") as response:
            assert response.status == 404
    assert origin.asked == [("refs/heads/main", "")]


async def test_routes_that_nobody_can_reach_are_told_at_the_start(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    route = RouteSection(name="os", prefix="/ostree/", upstream="http://127.0.0.1:9", kind=RouteKind.OSTREE)
    async with site.running(route=(route,)):
        assert "nobody can reach them: os; south.content.enabled is false" in caplog.text
        state = await site.operator.status()
        assert (state.routes[0].served, "NOT SERVED: south.content.enabled" in show_status(state)) == (False, True)
    caplog.clear()
    async with site.running():
        assert "south.content.enabled" not in caplog.text


async def test_one_gateway_per_state_folder(site: Site) -> None:
    async with site.running():
        with pytest.raises(BusyError, match="another gateway runs"):
            await site.start_and_fail()


def drop_authority(site: Site) -> None:
    StateFolder(site.config.gateway.state).authority[0].unlink()


def drop_floor(site: Site) -> None:
    for copy in StateFolder(site.config.gateway.state).floor:
        copy.unlink()


def drop_state(site: Site) -> None:
    site.config.gateway.state.rename(site.folder / "gone")


def drop_root(site: Site) -> None:
    (site.folder / "root.json").unlink()


def newer_store(site: Site) -> None:
    version = site.config.gateway.state / "store" / "format_version"
    version.parent.mkdir()
    version.write_text("999\n")


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (drop_authority, StateError),
        (drop_floor, FloorError),
        (drop_state, StateError),
        (drop_root, ConfigurationError),
        (newer_store, FormatVersionError),
    ],
)
async def test_a_gateway_that_cannot_be_trusted_to_run_does_not_start(
    site: Site, damage: Callable[[Site], None], error: type[Exception]
) -> None:
    damage(site)
    with pytest.raises(error):
        await site.start_and_fail()


async def test_a_taken_port_ends_the_start_and_leaves_nothing_behind(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.config.south.port))
        taken.listen()
        with pytest.raises(ConfigurationError, match=r"\[south\]"):
            await site.start_and_fail()
    async with site.running():
        assert (await site.operator.status()).name == "gw"


async def test_background_work_that_fails_ends_the_gateway(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.app._keep_certificate", broken)
    with pytest.raises(ZeroDivisionError):
        async with site.running():
            await asyncio.Event().wait()


async def fieldrelay(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["gateway", *arguments])


async def test_every_command_says_what_the_running_gateway_says(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--config", str(site.folder / "gateway.toml"))

    async def said(*arguments: str) -> dict[str, object]:
        capsys.readouterr()
        assert await fieldrelay(*config, *arguments, "--json") == 0
        value: dict[str, object] = json.loads(capsys.readouterr().out)
        return value

    async with site.running() as listening:
        refreshed = await said("refresh", "plant")
        assert refreshed["schema"] == "fieldrelay.gateway.refresh/1"
        token = (await said("token", "n1"))["token"]
        assert isinstance(token, dict)
        async with site.node("n1", listening, token["token"]) as (session, url):
            agent = DdiClient(session, url, "n1", manner=Manner(server_hostname=GATEWAY_IDENTITY))
            await agent.poll()
            await agent.config_data(NodeFacts(BOARD, "1.1\x1b[2J", None, "a").attributes())
        assigned = await said("assign", "1.2", "n1", "--reason", "try")
        assert assigned["assignments"][0]["verdict"] == "ordered"  # type: ignore[index]  # JSON
        status = await said("status")
        assert status["status"]["nodes"][0]["wanted"]["reason"] == "try"  # type: ignore[index]  # JSON
        assert len((await said("nodes"))["nodes"]) == 1  # type: ignore[arg-type]  # JSON

        commands: Sequence[Sequence[str]] = (["status"], ["nodes"], ["assign", "1.2", "--all"], ["refresh", "plant"], ["token"])
        for command in commands:
            capsys.readouterr()
            assert await fieldrelay(*config, *command) == 0
            text = capsys.readouterr().out
            assert text.strip()
            assert "\x1b" not in text
        assert await fieldrelay(*config, "assign", "7.7", "n1") == 26
        assert "trust.unknown-target" in capsys.readouterr().err
        assert await fieldrelay(*config, "assign", "1.2") == 10
    assert await fieldrelay(*config, "status") == 61


@asynccontextmanager
async def service(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """`fieldrelay gateway serve` as a process of its own, once it has told the service manager that it is ready."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(60)
        command = [str(Path(sys.executable).with_name("fieldrelay")), "gateway", "--config", str(site.folder / "gateway.toml")]
        environment = os.environ | {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "60000000"}
        process = await asyncio.create_subprocess_exec(*command, "serve", env=environment, stderr=asyncio.subprocess.PIPE)
        try:
            while not (await asyncio.to_thread(manager.recv, 1000)).startswith(b"READY=1"):
                pass
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_the_service_says_ready_and_ends_on_sigterm_with_status_0(site: Site) -> None:
    async with service(site) as process:
        assert (await site.operator.status()).name == "gw"
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0
    entries = [json.loads(line) for line in log.splitlines()]
    assert entries[-1]["message"] == "gw has ended"


async def test_a_gateway_that_was_killed_comes_back_with_its_orders(site: Site) -> None:
    async with service(site) as process:
        await mirrored(site)
        token = (await site.operator.token(TokenRequest(valid_s=60))).token
        async with site.node("n1", Listening(site.config.south.port), token) as (session, url):
            agent = DdiClient(session, url, "n1", manner=Manner(server_hostname=GATEWAY_IDENTITY))
            await agent.config_data(NodeFacts(BOARD).attributes())
        await site.operator.assign(AssignRequest(release="1.2", nodes=("n1",)))
        before = await site.operator.nodes()
        process.kill()
        await process.wait()
    async with service(site):
        assert await site.operator.nodes() == before
