"""What goes between a node and its gateway, written down on the way: what the node told is known from neither of them.

async with listening(state, port) as heard:      # the node comes to heard.port, is served as by the gateway at `port`
    ...
    heard.feedback(17)                           # what was told of the gateway's action 17

TLS is ended here with the gateway's own certificate and begun anew, so tokens pass and client certificates do not. Who writes
down every byte of a connection reads the requests from them later (RFC 9112, without chunks: neither side uses them).
"""

import asyncio
import json
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from gateway.config import StateFolder

_BLOCK_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Said:
    """One whole request, and the status of its answer; 0 where none came."""

    method: str
    path: str
    body: bytes
    status: int

    @property
    def details(self) -> list[str]:
        """The lines of a feedback."""
        lines: list[str] = json.loads(self.body)["status"].get("details") or []
        return lines


@dataclass(slots=True)
class _Connection:
    forth: bytearray = field(default_factory=bytearray)
    back: bytearray = field(default_factory=bytearray)

    def said(self) -> Iterator[Said]:
        asked, answered = bytes(self.forth), bytes(self.back)
        while (request := _message(asked)) is not None:
            (method, path, _), body, asked = request
            status = 100
            while status == 100 and (answer := _message(answered, bodiless=method == "HEAD")) is not None:
                (_, code, *_), _, answered = answer
                status = int(code)
            yield Said(method, path, body, 0 if status == 100 else status)


class Heard:
    """Everything that went by; `port` is where the node finds its gateway."""

    def __init__(self) -> None:
        self.port = 0
        self._connections: list[_Connection] = []

    def feedback(self, action: int) -> list[Said]:
        """What was told of one action, connection by connection: swupdate tells on two at the same time."""
        place = f"/deploymentBase/{action}/feedback"
        every = (said for connection in self._connections for said in connection.said())
        return [said for said in every if said.method == "POST" and said.path.endswith(place)]

    def new(self) -> _Connection:
        self._connections.append(_Connection())
        return self._connections[-1]


@asynccontextmanager
async def listening(state: StateFolder, port: int) -> AsyncIterator[Heard]:
    """Before the gateway with that `state`, which serves nodes at `port`."""
    heard, theirs = Heard(), ssl.create_default_context(cafile=state.authority[0])
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(*state.server)

    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        connection = heard.new()
        with suppress(OSError):  # the gateway is down, or one of both ends went away
            try:
                back, forth = await asyncio.open_connection("127.0.0.1", port, ssl=theirs)
                try:
                    await _either(_pump(reader, forth, connection.forth), _pump(back, writer, connection.back))
                finally:
                    forth.transport.abort()
            finally:
                writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=ours)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


async def _either(*pumps: Coroutine[None, None, None]) -> None:
    """Until one end is silent: TLS knows no half of a connection."""
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: StreamReader, writer: StreamWriter, kept: bytearray) -> None:
    while block := await reader.read(_BLOCK_BYTES):
        kept += block
        writer.write(block)
        await writer.drain()


def _message(data: bytes, *, bodiless: bool = False) -> tuple[list[str], bytes, bytes] | None:
    """The words of its first line, its body, and what comes after it; None for one that is not whole."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *fields = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    length = 0 if bodiless else int(named.get("content-length", "0"))
    return (first.split(" "), rest[:length], rest[length:]) if len(rest) >= length else None
