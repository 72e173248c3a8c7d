"""`ONLY=polling`: one gateway process on one core, polled by 1,000 nodes every 10 s, while it polls a hawkBit for them.

The nodes (`polling_nodes.py`) have the other core. There are four kinds of them, 250 of each, as real clients behave:

| kind | shows | connection |
|---|---|---|
| agent | certificate | kept: our agent, polling oftener than its connections rest |
| agent-anew | certificate | new for each request, whole handshake: our agent where it polls more rarely |
| libcurl | token | new for each request, TLS session resumed: libcurl beyond its longest idle time (SWUpdate) |
| libcurl-anew | token | new for each request, whole handshake: RAUC's updater, which begins each request from nothing |

Each polls its root; every 30th time it sends its attributes. 50 of the nodes have an open action, ask for its deployment at
each poll and tell of it in bursts. All of them are assigned by one hawkBit server, which counts what it is asked.

Rows: the median and the 99th percentile of the root polls with their connections, the gateway's share of its core, and the
most requests to hawkBit within a second, once with the defaults of the gateway and of hawkBit, once with hawkBit polled as
hard as can be configured (every 10 s, `requests_per_s` at its most). They are compared with goals: there is no peer.
Where others load the machine the times are theirs, too: what the gateway waited for its core is told beside them.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.config import StateFolder
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes, standings
from gateway.database.records import ClientKind, Running, Standing
from gateway.north.hawkbit.attributes import attributes_of, fingerprint
from gateway.setup import Wishes, set_up
from tests.benchmarks.measure import Row
from tests.benchmarks.polling_nodes import ATTRIBUTES, Device, Plan, Polled
from tests.benchmarks.servers import pin
from tests.builders.bundles import describe, image, signed
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from update.digest import Digest, digest_of
from update.durable import Disk
from update.trust.verified import Provenance
from update.wire.authority import SiteAuthority, make_csr, write_certificate

NODES = 1000
ORDERED = 50
EVERY_S = 10
WARM_S = 30.0
MEASURED_S = 60.0
HARD_MEASURED_S = 30.0
NORTH_LIMIT_PER_S = 200
"""hawkBit's filter against denial of service, GET requests of one address (`HawkbitSecurityProperties.Dos`)."""
P50_GOAL_MS = 10.0
P99_GOAL_MS = 100.0
CPU_GOAL = 0.25
_NAME = "gw"
_ASSIGNER = "hawkbit:bench"
_BUNDLE = "os-1.2.swu"
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Plant:
    """A gateway's folder, and its nodes."""

    folder: Path
    devices: tuple[Device, ...]

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.folder / "state")

    @property
    def key(self) -> Path:
        """All nodes' key: only their names differ."""
        return self.folder / "node.key"

    @property
    def ordered(self) -> tuple[str, ...]:
        """The nodes that have something to do, of every kind."""
        return tuple(device.name for device in self.devices[:: NODES // ORDERED - 1][:ORDERED])


def rows(work: Path) -> Iterator[Row]:
    """Every row of this group."""
    plant = make_plant(work / "usual")
    usual = measure(plant, north_sleep="00:05:00", requests_per_s=20, measured_s=MEASURED_S)
    polls_s = sorted(each for kind in usual.polls_s.values() for each in kind)
    load = f"load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    done = f"{usual.requests / usual.seconds:.0f} requests/s, {usual.failures} failed, {usual.resumed} resumed; {load}"
    yield _goal("poll-p50-ms", _rank(polls_s, 0.5) * 1e3, P50_GOAL_MS, "ms", _by_kind(usual, 0.5))
    yield _goal("poll-p99-ms", _rank(polls_s, 0.99) * 1e3, P99_GOAL_MS, "ms", f"{_by_kind(usual, 0.99)}; {_waited(usual)}")
    yield _goal("poll-cpu-share", usual.cpu_s / usual.seconds, CPU_GOAL, "core", f"{done}; {_client(usual)}")
    yield _north("north-requests-peak", usual)
    hard = measure(make_plant(work / "hard"), north_sleep="00:00:10", requests_per_s=150, measured_s=HARD_MEASURED_S)
    yield _north("north-requests-peak-hard", hard)
    yield _goal("poll-cpu-share-hard", hard.cpu_s / hard.seconds, 2 * CPU_GOAL, "core", _client(hard))


def measure(plant: Plant, *, north_sleep: str, requests_per_s: int, measured_s: float) -> Polled:
    """Let the nodes poll once."""
    north_port = _free_port()
    with gateway(plant, north_port, requests_per_s) as (pid, port):
        pin(pid, min(os.sched_getaffinity(0)))
        plan = Plan(
            port=port,
            pid=pid,
            authority=str(plant.state.authority[0]),
            key=str(plant.key),
            devices=plant.devices,
            every_s=EVERY_S,
            warm_s=WARM_S,
            measured_s=measured_s,
            north_port=north_port,
            north_sleep=north_sleep,
            ordered=plant.ordered,
            bundle=str(plant.folder / _BUNDLE),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.polling_nodes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        pin(process.pid, max(os.sched_getaffinity(0)))
        try:
            answer, _ = process.communicate(json.dumps(asdict(plan)), timeout=WARM_S + measured_s + _PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Polled(**json.loads(answer))


def make_plant(folder: Path) -> Plant:
    """Set a gateway up with its nodes in its database: they have been here before, and hawkBit knows them."""
    folder.mkdir()
    now, disk = datetime.now(UTC), Disk()
    asyncio.run(set_up(Wishes(folder / "gateway.toml", _NAME, folder / "state", folder / "s", 8443), disk, now))
    _publish(folder, now)
    plant = Plant(folder, tuple(_device(folder, number) for number in range(NODES)))
    authority = SiteAuthority.load(*plant.state.authority)
    for device in plant.devices:
        if device.certificate:
            certificate = authority.issue_node(make_csr(disk, plant.key, device.name), node=device.name, now=now)
            write_certificate(disk, Path(device.certificate), certificate)
    asyncio.run(_register(plant, now))
    return plant


@contextmanager
def gateway(plant: Plant, north_port: int, requests_per_s: int) -> Iterator[tuple[int, int]]:
    """`fieldrelay gateway serve`, once it listens: its process and its port."""
    folder, port = plant.folder, _free_port()
    file, made = folder / "serve.toml", (folder / "gateway.toml").read_text()
    south = f'port = {port}\naddresses = ["127.0.0.1"]\npolling_interval_s = {EVERY_S}'
    file.write_text(
        f'{made.replace("port = 8443", south)}\n[[repository]]\nname = "plant"\nroot = "root.json"\n'
        f'upstreams = ["{folder}/upstream"]\ncms_roots = ["{_anchors(folder)}"]\n'
        f'[[hawkbit]]\nname = "bench"\nurl = "http://127.0.0.1:{north_port}"\nrepository = "plant"\n'
        f'gateway_token = "token"\nrequests_per_s = {requests_per_s}\n'
    )
    (folder / "token").write_text("0123456789abcdef0123456789abcdef")
    command = [str(Path(sys.executable).with_name("fieldrelay")), "gateway", "--config", str(file), "serve"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_listening(process, folder, port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(60)


def _device(folder: Path, number: int) -> Device:
    name = f"n{number:04}"
    certificate, token = str(folder / f"{name}.pem"), digest_of(name.encode())
    match number % 4:
        case 0:
            return Device(name, "agent", "update", certificate=certificate, kept=True)
        case 1:
            return Device(name, "agent-anew", "update", certificate=certificate)
        case 2:
            return Device(name, "libcurl", "libcurl-agent/1.0", token=token, resumes=True)
        case _:
            return Device(name, "libcurl-anew", "rauc-hawkbit-c-agent/1.0", token=token)


async def _register(plant: Plant, now: datetime) -> None:
    database = await Database.open(sqlite_url(plant.state.database))
    try:
        async with database.writing() as transaction:
            for device in plant.devices:
                kind = ClientKind.AGENT if device.certificate else ClientKind.SWUPDATE
                node = await nodes.register(transaction, device.name, kind=kind, fingerprint=_print_of(device), now=now)
                await nodes.set_assigner(transaction, device.name, _ASSIGNER)
                await nodes.set_accepts(transaction, device.name, Provenance.CMS)
                if device.token:
                    await nodes.set_token(transaction, device.name, digest_of(device.token.encode()))
                await nodes.describe(transaction, device.name, attributes=ATTRIBUTES, hardware=None, running=Running())
                told = fingerprint(attributes_of(replace(node, attributes=ATTRIBUTES), _NAME))
                await standings.note(transaction, Standing(_ASSIGNER, device.name, told, now))
    finally:
        await database.close()


def _print_of(device: Device) -> Digest:
    """By what the gateway knows it again: its certificate or its token."""
    if not device.certificate:
        return digest_of(device.token.encode())
    return digest_of(x509.load_pem_x509_certificate(Path(device.certificate).read_bytes()).public_bytes(Encoding.DER))


def _publish(folder: Path, now: datetime) -> None:
    """The bundle: listed by the repository, and what hawkBit wants."""
    content = b"root file system"
    made = signed(folder, describe(images=[image("rootfs.img", content)], version="1.2"), {"rootfs.img": content})
    (folder / _BUNDLE).write_bytes(made.read_bytes())
    builder = RepositoryBuilder(now=now)
    builder.add_target(_BUNDLE, made.read_bytes(), {"version": "1.2"})
    builder.publish()
    builder.write_to(folder / "upstream")
    (folder / "root.json").write_bytes(builder.root_bytes)


def _anchors(folder: Path) -> Path:
    return make_pki().write(folder).anchors


def _await_listening(process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:  # not yet
            time.sleep(0.05)
        else:
            return
    sys.exit(f"benchmark: the gateway does not listen; see {folder}/log")


def _goal(name: str, ours: float, goal: float, unit: str, note: str) -> Row:
    return Row(name, ours, goal, "the goal", unit, goal=1.0, note=note)


def _north(name: str, polled: Polled) -> Row:
    note = (
        f"{polled.north_requests / polled.seconds:.1f}/s on average for {polled.north_targets} targets; "
        f"at most {polled.north_most_entries} entries for one action"
    )
    return Row(name, polled.north_peak, NORTH_LIMIT_PER_S, "hawkBit's limit", "/s", goal=1.0, note=note)


def _by_kind(polled: Polled, share: float) -> str:
    return ", ".join(f"{kind} {_rank(sorted(times), share) * 1e3:.1f} ms" for kind, times in sorted(polled.polls_s.items()))


def _client(polled: Polled) -> str:
    return (
        f"the nodes took {polled.client_cpu_s / polled.seconds:.0%} of the other core, and were {polled.late_s * 1e3:.0f} ms late"
    )


def _waited(polled: Polled) -> str:
    return f"the gateway was ready and had no core for {polled.waited_s / polled.seconds:.1%} of the time"


def _rank(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
