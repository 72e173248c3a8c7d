"""The load generator of `ONLY=serving`: a process of its own, so light that the server is what is measured.

`python -m tests.benchmarks.load` reads a `Plan` as JSON from its standard input and writes a `Load` as JSON. Requests are
ready-made bytes; of an answer only status and Content-Length are looked at, and over plain TCP the kernel throws its body
away unread (recv(2) with MSG_TRUNC). One event loop without callbacks serves all connections. The processor clocks of the
server's processes are read at the same moments as the counters here. What the bodies hold is checked elsewhere.
"""

import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from update.wire.tls import GATEWAY_IDENTITY, client_context

HEAD_BYTES = 1024
SCRAP_BYTES = 1 << 20
_NONBLOCKING = (BlockingIOError, ssl.SSLWantReadError)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask of whom, and for how long. `tls`: site CA, certificate and key. `pids`: whose processor time counts."""

    port: int
    requests: tuple[str, ...]
    connections: int
    warm_s: float
    measured_s: float
    pids: tuple[int, ...]
    tls: tuple[str, str, str] | None = None
    core: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it: body bytes and whole answers in `seconds`, and the server's processor seconds meanwhile."""

    body_bytes: int
    answers: int
    answered_bytes: int
    seconds: float
    cpu_s: float
    client_cpu_s: float

    @property
    def requests(self) -> float:
        """Requests answered, fractions included: a whole file may take longer than is measured."""
        return self.body_bytes / (self.answered_bytes / self.answers)

    @property
    def per_s(self) -> float:
        """Requests in a second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """The server's processor time for one request, in microseconds, user and system."""
        return self.cpu_s / self.requests * 1e6


class _Counts:
    """Of all connections together."""

    def __init__(self) -> None:
        self.body_bytes = self.answers = self.answered_bytes = 0


class _Connection:
    """Asks one request after the other."""

    def __init__(self, connected: socket.socket, requests: Sequence[bytes], first: int, counts: _Counts) -> None:
        self.socket = connected
        self._requests, self._next, self._counts = requests, first, counts
        self._left = self._length = 0
        self._head = b""
        self._discard = 0 if isinstance(connected, ssl.SSLSocket) else socket.MSG_TRUNC

    def ask(self) -> None:
        self.socket.send(self._requests[self._next % len(self._requests)])
        self._next += 1

    def read(self, scrap: bytearray) -> None:
        """Take everything that is there; ask again at the end of an answer."""
        while True:
            try:
                if not self._left:
                    self._begin()
                    continue
                count = self.socket.recv_into(scrap, min(self._left, SCRAP_BYTES), self._discard)
            except _NONBLOCKING:
                return
            if not count:
                raise ConnectionError("the server closed a connection in the middle of an answer")
            self._took(count)
            if not self._left and self._discard:  # nothing more can be there: spare a call that says so
                return

    def _begin(self) -> None:
        self._head += self.socket.recv(HEAD_BYTES)
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            if not self._head or len(self._head) > HEAD_BYTES:
                raise ConnectionError(f"no answer but {self._head!r}")
            return
        self._head = b""
        if head[:12] not in {b"HTTP/1.1 206", b"HTTP/1.1 200"}:
            raise ConnectionError(f"refused: {head!r} {body!r}")
        start = head.lower().index(b"content-length:") + 15
        self._length = self._left = int(head[start:].partition(b"\r\n")[0])
        self._took(len(body))

    def _took(self, count: int) -> None:
        self._left -= count
        self._counts.body_bytes += count
        if not self._left:
            self._counts.answers += 1
            self._counts.answered_bytes += self._length
            self.ask()


def run(plan: Plan) -> Load:
    """Warm up, measure, close."""
    counts, context = _Counts(), _context(plan)
    requests = [text.encode() for text in plan.requests]
    step = max(1, len(requests) // plan.connections)
    connections: dict[int, _Connection] = {}
    poll = select.epoll()
    try:
        for number in range(plan.connections):
            connected = _connect(plan.port, context)
            connections[connected.fileno()] = _Connection(connected, requests, number * step, counts)
            poll.register(connected, select.EPOLLIN)
        for connection in connections.values():
            connection.ask()
        _serve(poll, connections, time.perf_counter() + plan.warm_s)
        counts.body_bytes = counts.answers = counts.answered_bytes = 0
        cpu, own, begun = _cpu_s(plan.pids), time.process_time(), time.perf_counter()
        _serve(poll, connections, begun + plan.measured_s)
        while not counts.answers:
            _serve(poll, connections, time.perf_counter() + 0.1)
        seconds, used = time.perf_counter() - begun, _cpu_s(plan.pids) - cpu
        return Load(counts.body_bytes, counts.answers, counts.answered_bytes, seconds, used, time.process_time() - own)
    finally:
        for connection in connections.values():
            with suppress(OSError):
                connection.socket.close()
        poll.close()


def _serve(poll: select.epoll, connections: dict[int, _Connection], until: float) -> None:
    scrap, silent = bytearray(SCRAP_BYTES), 0
    while time.perf_counter() < until:
        ready = poll.poll(0.5)
        silent = 0 if ready else silent + 1
        if silent > 120:
            raise ConnectionError("the server has said nothing for a minute")
        for descriptor, _ in ready:
            connections[descriptor].read(scrap)


def _context(plan: Plan) -> ssl.SSLContext | None:
    if plan.tls is None:
        return None
    ca, certificate, key = map(Path, plan.tls)
    return client_context(ca, certificate=certificate, key=key)


def _connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=60)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        connected = context.wrap_socket(connected, server_hostname=GATEWAY_IDENTITY)
    connected.setblocking(False)
    return connected


def _cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds of processes with all their threads: clock_getcpuclockid(3) says which clock that is."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def main() -> None:
    values = json.load(sys.stdin)
    plan = Plan(**values | {name: tuple(values[name]) for name in ("requests", "pids", "tls") if values[name] is not None})
    print(json.dumps(asdict(run(plan))))


if __name__ == "__main__":
    main()
