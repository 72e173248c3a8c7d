"""A device with an unmodified swupdate in suricatta mode, which keeps its state in a U-Boot environment.

- It sees no network but one port of its own loopback, and what comes there is passed on to the gateway (`Link`): many run at
  once, and the way to the gateway can be made slow.
- The bundle writes `place`, where every node has a file of its own; a delta takes what it can from `source`, another one.
- With `proxied` it comes to the gateway's plain listener by `http_proxy`; DDI goes by https, past the proxy.
- `restart` is what a bootloader does with what was installed: the trial begins (`ustate` 2), or it fell back (`ustate` 3).
- A swupdate that was asked to end has been seen to hang: it is killed.
"""

import asyncio
import json
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.interop.swupdate_peer import BootEnvironment, group, namespaces
from tests.peers import need_tool

BLANK: Final = b"\xe5"
INSTALLED: Final = "1"
TRIAL: Final = "2"
FELL_BACK: Final = "3"
_PORT = 8443
_LAUNCHER = Path(__file__).with_name("swupdate_launch.py")
_BLOCK_BYTES = 16 << 10
_TLS = b"\x16"
"""What a TLS handshake begins with."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all nodes of a test have: where bundles write and deltas read, whom they trust, and where the gateway is."""

    place: Path
    source: Path
    anchors: Path
    site_ca: Path
    gateway_port: int
    plain_port: int


class Link:
    """Passes connections on to `port`, and those without TLS to `plain_port`.

    `bytes_per_s` limits what comes back on each of them, 0: as fast as it goes. Who changes `port` sends the node elsewhere.
    """

    def __init__(self, port: int, plain_port: int) -> None:
        self.bytes_per_s = 0
        self.port, self._plain_port = port, plain_port
        self._busy: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, listening: socket.socket) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, sock=listening)
        try:
            yield
        finally:
            server.close()
            await self.cut()
            await self.cut()  # what had been accepted in the same moment

    async def cut(self) -> None:
        """Break off every connection, with what is still on its way."""
        for task in tuple(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes what was aborted, and takes what had just come

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._busy.add(task)
        task.add_done_callback(partial(self._over, writer))

    def _over(self, writer: StreamWriter, task: asyncio.Task[None]) -> None:
        """Also of a connection that was broken off before anything was done for it."""
        writer.transport.abort()
        self._busy.discard(task)

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):  # the gateway is down, or one of both ends went away
            first = await reader.read(_BLOCK_BYTES)
            port = self.port if first.startswith(_TLS) else self._plain_port
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            try:
                forth.write(first)
                await asyncio.gather(self._pump(reader, forth), self._pump(back, writer, slowly=True))
            finally:
                forth.transport.abort()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, *, slowly: bool = False) -> None:
        while block := await reader.read(_BLOCK_BYTES):
            if slowly and self.bytes_per_s:
                await asyncio.sleep(len(block) / self.bytes_per_s)
            writer.write(block)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


class StockNode:
    """One device; `slot_bytes` is the size of what it writes to."""

    def __init__(self, folder: Path, name: str, token: str, ground: Ground, *, slot_bytes: int) -> None:
        self._tool, self._namespaces = need_tool("swupdate"), namespaces()
        folder.mkdir()
        self.name = name
        self.slot = folder / "slot"
        self.slot.write_bytes(BLANK * slot_bytes)
        self.environment = BootEnvironment(folder, ustate="0")
        self.source = folder / "source"
        self.source.write_bytes(BLANK * slot_bytes)
        self.proxied = False
        self.link = Link(ground.gateway_port, ground.plain_port)
        self._folder, self._ground = folder, ground
        self._configuration = folder / "swupdate.cfg"
        self._configuration.write_text(
            "globals: { };\n"
            f'suricatta: {{ cafile = "{ground.site_ca}"; targettoken = "{token}"; retry = 20; retrywait = 1; }};\n'
            f'identify: ( {{ name = "serial"; value = "{name}"; }} );\n'
        )

    @property
    def log(self) -> str:
        """What swupdate said so far, over all its runs."""
        file = self._folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def ustate(self) -> str:
        """What the bootloader is told."""
        return self.environment.variables().get("ustate", "")

    @property
    def waits_for_its_restart(self) -> bool:
        """Whether it has installed, and has told so."""
        return self.ustate == INSTALLED and "An already installed update is pending testing" in self.log

    def restart(self, ustate: str) -> None:
        """Go through the bootloader; only while swupdate is not running."""
        self.environment.set("ustate", ustate)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """swupdate polls; at the end it is killed."""
        temporary = self._folder / "tmp"
        temporary.mkdir(exist_ok=True)
        ours, theirs = socket.socketpair()
        with (self._folder / "log").open("ab") as output, ours, group(self._command(theirs), output.fileno(), theirs, temporary):
            theirs.close()
            ours.settimeout(60)
            _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
            listening = socket.socket(fileno=descriptors[0])
            listening.setblocking(False)
            async with self.link.open(listening):
                ours.sendall(b"g")
                yield

    def _command(self, control: socket.socket) -> list[str]:
        server = f"-t DEFAULT -u https://127.0.0.1:{_PORT} -i {self.name} -p 1"
        command = [self._tool, "-v", "-B", "uboot", "-f", str(self._configuration), "-k", str(self._ground.anchors)]
        command += ["--cert-purpose", "codeSigning", "-H", "demo:1.0", "-u", server]
        mounts = [[str(self.environment.etc), "/etc"], [str(self.slot), str(self._ground.place)]]
        mounts.append([str(self.source), str(self._ground.source)])
        order = {"control": control.fileno(), "mounts": mounts, "port": _PORT, "proxy": self.proxied, "command": command}
        return [*self._namespaces, sys.executable, str(_LAUNCHER), json.dumps(order)]
