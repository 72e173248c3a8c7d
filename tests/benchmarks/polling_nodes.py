"""The nodes of `ONLY=polling`: a process of its own, that polls as a thousand devices do and times each answer.

`python -m tests.benchmarks.polling_nodes` reads a `Plan` as JSON from its standard input and writes a `Polled` as JSON. The
hawkBit server that the gateway polls meanwhile (`polling_north.py`) is in here, too: the gateway has its core for itself.

Every node polls at its own time of the interval, whether the one before was answered or not; a poll is timed from its first
byte (that of the connection, where it needs one) to the last byte of the answer. TLS is spoken by hand over plain sockets:
sessions are resumed as libcurl does, which asyncio's own connections cannot.
"""

import asyncio
import json
import os
import random
import socket
import ssl
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.benchmarks.polling_north import North, serve_north
from update.wire.tls import GATEWAY_IDENTITY, client_context

ATTRIBUTES = {"serial": "7", "rack": "12", "kernel": "6.1.0-28-arm64"}
"""What each node says of itself, always the same."""
_PIECE = 64 << 10
_PATIENCE_S = 60.0
_ATTRIBUTES_EVERY = 30
_FEEDBACK_EVERY = 6
_BURST = 5


@dataclass(frozen=True, slots=True)
class Device:
    """One node. It has a certificate (its file), or else a token; `kept`: it keeps its connection, `resumes`: its session."""

    name: str
    kind: str
    agent: str
    certificate: str = ""
    token: str = ""
    kept: bool = False
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: poll at `port` every `every_s`. `authority` and `key`: files; `ordered`: nodes that hawkBit wants it of."""

    port: int
    pid: int
    authority: str
    key: str
    devices: tuple[Device, ...]
    every_s: float
    warm_s: float
    measured_s: float
    north_port: int
    north_sleep: str
    ordered: tuple[str, ...]
    bundle: str


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of it. `polls_s`: seconds of each root poll, by kind of device; the others are of everything measured.

    `waited_s` is how long the gateway's threads were ready and had no core, because others had it.
    """

    polls_s: Mapping[str, list[float]]
    requests: int
    failures: int
    resumed: int
    seconds: float
    cpu_s: float
    waited_s: float
    client_cpu_s: float
    late_s: float
    north_requests: int
    north_peak: int
    north_targets: int
    north_most_entries: int


@dataclass(slots=True)
class Tally:
    """What is counted while `measuring`."""

    polls_s: dict[str, list[float]] = field(default_factory=dict)
    requests: int = 0
    failures: int = 0
    resumed: int = 0
    late_s: list[float] = field(default_factory=list)
    measuring: bool = False
    complaints: list[str] = field(default_factory=list)


class Line:
    """One TLS connection, driven by hand."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._loop = asyncio.get_running_loop()

    async def open(self, session: ssl.SSLSession | None) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.sock_connect(self.socket, ("127.0.0.1", self._port))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self._context.wrap_bio(self._in, self._out, server_hostname=GATEWAY_IDENTITY, session=session)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send, and read one answer: its status and body."""
        self.tls.write(request)
        await self._flush()
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._read()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = head.decode().lower().split("\r\n")
        length = next((int(each[15:]) for each in fields if each.startswith("content-length:")), 0)
        while len(body) < length:
            body += await self._read()
        return int(fields[0].split()[1]), body

    def close(self) -> None:
        self.socket.close()

    async def _read(self) -> bytes:
        while True:
            try:
                data = self.tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            if not data:
                raise ConnectionError("the gateway ended the connection in the middle of an answer")
            return data

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self.socket, _PIECE)
        if not data:
            raise ConnectionError("the gateway ended the connection")
        self._in.write(data)

    async def _flush(self) -> None:
        if data := self._out.read():
            await self._loop.sock_sendall(self.socket, data)


class Node:
    """One device at work."""

    def __init__(self, device: Device, plan: Plan, context: ssl.SSLContext, tally: Tally) -> None:
        self._device = device
        self._plan = plan
        self._context = context
        self._tally = tally
        self._line: Line | None = None
        self._session: ssl.SSLSession | None = None
        self._count = random.randrange(_ATTRIBUTES_EVERY)
        self._said = 0

    async def poll(self, lag_s: float) -> None:
        """What the device does at its time."""
        self._count += 1
        begun = time.perf_counter()
        body = await self._ask("GET", "")
        if self._tally.measuring:
            self._tally.polls_s.setdefault(self._device.kind, []).append(time.perf_counter() - begun)
            self._tally.late_s.append(lag_s)
        links = json.loads(body)["_links"]
        if "configData" in links or not self._count % _ATTRIBUTES_EVERY:
            await self._ask("PUT", "/configData", {"mode": "merge", "data": ATTRIBUTES})
        if wanted := links.get("deploymentBase"):
            path = wanted["href"].partition(self._device.name)[2]
            await self._ask("GET", path)
            if not self._count % _FEEDBACK_EVERY:
                await self._report(path.partition("?")[0])

    async def _report(self, path: str) -> None:
        """A burst, as clients tell of an installation."""
        for step in range(_BURST):
            self._said += 1
            result = {"finished": "none", "progress": {"cnt": step, "of": _BURST}}
            status = {"execution": "proceeding", "result": result, "details": [f"step {self._said}"]}
            await self._ask("POST", f"{path}/feedback", {"id": "1", "status": status})

    async def _ask(self, method: str, path: str, message: object = None) -> bytes:
        line = self._line or await self._connected()
        body = b"" if message is None else json.dumps(message).encode()
        shown = f"Authorization: TargetToken {self._device.token}\r\n" if self._device.token else ""
        head = (
            f"{method} /DEFAULT/controller/v1/{self._device.name}{path} HTTP/1.1\r\nHost: gateway:{self._plan.port}\r\n"
            f"User-Agent: {self._device.agent}\r\nAccept: application/json\r\nContent-Type: application/json\r\n{shown}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        status, answer = await line.exchange(head.encode() + body)
        if self._device.resumes:
            self._session = line.tls.session
        if self._device.kept:
            self._line = line
        else:
            line.close()
        if self._tally.measuring:
            self._tally.requests += 1
            self._tally.resumed += bool(line.tls.session_reused)
        if status != 200:
            raise ConnectionError(f"{method} {path}: {status} {answer[:200]!r}")
        return answer

    async def _connected(self) -> Line:
        line = Line(self._plan.port, self._context)
        await line.open(self._session)
        return line

    def drop(self) -> None:
        """Begin anew with the next poll."""
        if self._line is not None:
            self._line.close()
            self._line = None


async def run(plan: Plan) -> Polled:
    """Warm up, measure, end."""
    tally, north = Tally(), North(plan.north_port, plan.north_sleep, plan.ordered, Path(plan.bundle))
    nodes = [Node(device, plan, _context(plan, device), tally) for device in plan.devices]
    async with serve_north(north), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_live(node, tally, plan.every_s, place / len(nodes))) for place, node in enumerate(nodes)]
        await asyncio.sleep(plan.warm_s)
        tally.measuring = True
        north.restart()
        cpu_s, waited_s, own_s, begun = cpu_seconds(plan.pid), waiting(plan.pid), time.process_time(), time.perf_counter()
        await asyncio.sleep(plan.measured_s)
        seconds, tally.measuring = time.perf_counter() - begun, False
        cpu_s, own_s = cpu_seconds(plan.pid) - cpu_s, time.process_time() - own_s
        waited_s = waiting(plan.pid) - waited_s
        for task in tasks:
            task.cancel()
    for complaint in tally.complaints[:5]:
        print(complaint, file=sys.stderr)
    return Polled(
        polls_s=tally.polls_s,
        requests=tally.requests,
        failures=tally.failures,
        resumed=tally.resumed,
        seconds=seconds,
        cpu_s=cpu_s,
        waited_s=waited_s,
        client_cpu_s=own_s,
        late_s=sorted(tally.late_s)[int(len(tally.late_s) * 0.99)],
        north_requests=north.requests,
        north_peak=north.peak(),
        north_targets=len(north.targets),
        north_most_entries=max(north.entries.values(), default=0),
    )


async def _live(node: Node, tally: Tally, every_s: float, place: float) -> None:
    """Poll at every interval; `place` (0 to 1) is where in it."""
    loop = asyncio.get_running_loop()
    due = loop.time() + place * every_s
    while True:
        await asyncio.sleep(due - loop.time())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await node.poll(loop.time() - due)
        except (OSError, TimeoutError) as error:
            node.drop()
            tally.complaints.append(f"{error!r}")
            tally.failures += tally.measuring
        due = max(due + every_s, loop.time())


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process with all its threads, user and system (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waiting(pid: int) -> float:
    """Seconds that the threads of a process have waited for a core (`/proc/PID/task/*/schedstat`, the second figure)."""
    waited_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def _context(plan: Plan, device: Device) -> ssl.SSLContext:
    if device.certificate:
        return client_context(Path(plan.authority), certificate=Path(device.certificate), key=Path(plan.key))
    return client_context(Path(plan.authority))


def main() -> None:
    values = json.load(sys.stdin)
    devices = tuple(Device(**each) for each in values["devices"])
    plan = Plan(**values | {"devices": devices, "ordered": tuple(values["ordered"])})
    work: Coroutine[object, object, Polled] = run(plan)
    print(json.dumps(asdict(asyncio.run(work))))


if __name__ == "__main__":
    main()
