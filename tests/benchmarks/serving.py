"""`ONLY=serving`: ranges and whole files from the gateway as a user runs it, beside nginx over the same files.

Both serve from the page cache over loopback, one process each, on one core; the load generator (`load.py`) has the other.
They take turns in rounds, and the medians count. Compared are requests in a second; the processor time for one request
(user and system, microseconds) is printed for both, and is what to trust while others load the machine. Before anything
is measured, every kind of request is asked of both and compared byte for byte.
"""

import http.client
import json
import os
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.load import Load, Plan
from tests.benchmarks.measure import Row
from tests.benchmarks.servers import NAME, Appliance, Server, gateway, make_appliance, nginx_static, pin, pss_mib
from update.chunks.ranges import MultipartParser, Range, format_range, parse_boundary
from update.wire.tls import GATEWAY_IDENTITY, client_context

CONTENT_BYTES = 128 << 20
ROUNDS = 3
WARM_S = 0.3
MEASURED_S = 1.0
REQUESTS = 1000
MEMORY_GOAL_MIB = 120.0
_PEER = "nginx static"
_PYTHON = "beside what the kernel does for both, the event loop's turn and reading the head are Python"
_FRAMES = "both make two calls for each part; 2.5 was seen where the client's own reading was the limit"
_TLS = "one more copy of each block than nginx makes"


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of load: `parts` ranges of `size` bytes in each request; no parts: whole files."""

    name: str
    connections: int
    size: int = 0
    parts: int = 1
    goal: float = 1.0
    why: str = _PYTHON


WORKS = (
    Work("multirange-100x32k", 10, 32 << 10, parts=100, goal=2.5, why=_FRAMES),
    Work("range-64k-c1", 1, 64 << 10),
    Work("range-64k-c10", 10, 64 << 10),
    Work("range-64k-c100", 100, 64 << 10),
    Work("range-64k-c1000", 1000, 64 << 10),
    Work("range-1m", 10, 1 << 20),
    Work("whole", 2, parts=0),
)


def rows(work: Path) -> Iterator[Row]:
    """Every comparison of this group."""
    appliance = make_appliance(work / "gateway", random.Random(1).randbytes(CONTENT_BYTES))
    with ExitStack() as stack:
        ours = stack.enter_context(gateway(appliance))
        peer = stack.enter_context(nginx_static(appliance, work / "nginx"))
        check(appliance, ours)
        check(appliance, peer)
        for server in (ours, peer):
            pin(server.pid, min(os.sched_getaffinity(0)))
        for tls in (False, True):
            for each in WORKS:
                yield compare(appliance, ours, peer, each, tls=tls)
    yield from memory(appliance, work)


def compare(appliance: Appliance, ours: Server, peer: Server, work: Work, *, tls: bool) -> Row:
    """One row: by turns, medians."""
    rounds = [(load(appliance, ours, work, tls=tls), load(appliance, peer, work, tls=tls)) for _ in range(ROUNDS)]
    own, other = [pair[0] for pair in rounds], [pair[1] for pair in rounds]
    costs = median(each.cpu_us for each in own), median(each.cpu_us for each in other)
    busy = max(each.client_cpu_s / each.seconds for each in [*own, *other])
    note = f"CPU per request {costs[0]:.1f} us, {_PEER} {costs[1]:.1f} us; load generator at {busy:.0%} of a core"
    name = work.name + "-tls" * tls
    if median(each.per_s for each in own) < work.goal * median(each.per_s for each in other):
        note += f"; below the goal: {work.why}{'; ' + _TLS if tls else ''}"
    per_s = median(each.per_s for each in own), median(each.per_s for each in other)
    return Row(name, *per_s, _PEER + " TLS" * tls, "/s", goal=work.goal, at_least=True, note=note)


def load(appliance: Appliance, server: Server, work: Work, *, tls: bool) -> Load:
    """Let the load generator run once."""
    process = start_load(appliance, server, work, tls=tls)
    answer, _ = process.communicate(timeout=120)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Load(**json.loads(answer))


def start_load(
    appliance: Appliance, server: Server, work: Work, *, tls: bool, seconds: float = MEASURED_S
) -> "subprocess.Popen[str]":
    """A load generator at work."""
    plan = Plan(
        port=server.tls_port if tls else server.port,
        requests=tuple(requests(appliance, work, tls=tls)),
        connections=work.connections,
        warm_s=WARM_S,
        measured_s=seconds,
        pids=(server.pid,),
        tls=appliance.node if tls else None,
    )
    command = [sys.executable, "-m", "tests.benchmarks.load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pin(process.pid, max(os.sched_getaffinity(0)))
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)))
    process.stdin.close()
    process.stdin = None
    return process


def requests(appliance: Appliance, work: Work, *, tls: bool) -> Iterator[str]:
    """Requests as clients of each side send them; the same ones at every call."""
    path = appliance.tls_path if tls else appliance.plain_path
    for ranges in wanted(work):
        field = f"Range: {format_range(ranges)}\r\n" if ranges else ""
        yield f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: load\r\nAccept: */*\r\n{field}\r\n"


def wanted(work: Work) -> Iterator[Sequence[Range]]:
    """Ranges at page borders, drawn from the whole content; those of one request never touch."""
    dice = random.Random(work.name)
    slots = CONTENT_BYTES // max(work.size * 2, 4096)
    for _ in range(REQUESTS if work.parts == 1 else 100 if work.parts else 1):
        starts = sorted(dice.sample(range(slots), work.parts))
        yield [Range(start * work.size * 2, work.size) for start in starts]


def check(appliance: Appliance, server: Server) -> None:
    """Every kind of request once, by plain HTTP and by TLS; `ValueError` for a wrong byte."""
    ca, certificate, key = map(Path, appliance.node)
    context = client_context(ca, certificate=certificate, key=key)
    for tls in (False, True):
        for work in WORKS:
            for ranges in list(wanted(work))[:3]:
                if _asked(appliance, server, ranges, context if tls else None) != _expected(appliance, ranges):
                    raise ValueError(f"{work.name}: wrong content from port {server.port}")


def _expected(appliance: Appliance, ranges: Sequence[Range]) -> bytes:
    spans = ranges or [Range(0, CONTENT_BYTES)]
    return b"".join(appliance.content[span.start : span.end] for span in spans)


def _asked(appliance: Appliance, server: Server, ranges: Sequence[Range], context: ssl.SSLContext | None) -> bytes:
    port, path = (server.port, appliance.plain_path) if context is None else (server.tls_port, appliance.tls_path)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    if context is not None:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=GATEWAY_IDENTITY)
    try:
        connection.request("GET", path, headers={"Host": NAME} | ({"Range": format_range(ranges)} if ranges else {}))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    boundary = parse_boundary(response.headers["Content-Type"]) if len(ranges) > 1 else None
    return body if boundary is None else b"".join(piece for _, piece in MultipartParser(boundary).feed(body))


def memory(appliance: Appliance, work: Path) -> Iterator[Row]:
    """The most memory while a thousand connections read ranges of 1 MiB, of fresh processes."""
    name = "memory-1000x1m-mib"
    thousand = Work(name, 1000, 1 << 20)
    with gateway(appliance) as server:
        ours = _most_memory(appliance, server, thousand)
    with nginx_static(appliance, work / "nginx-memory") as server:
        peer = _most_memory(appliance, server, thousand)
    yield Row(name, ours, MEMORY_GOAL_MIB, "the goal", "MiB", goal=1.0)
    yield Row(name, ours, peer, _PEER, "MiB")


def _most_memory(appliance: Appliance, server: Server, work: Work) -> float:
    process = start_load(appliance, server, work, tls=False, seconds=4.0)
    most = 0.0
    try:
        while process.poll() is None:
            most = max(most, pss_mib(server.pid))
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return most
