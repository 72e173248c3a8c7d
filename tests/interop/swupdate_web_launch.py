"""Run inside fresh namespaces: bring up loopback, start the tool, and relay a socket in the file system to its port there.

A socket in the file system is reached from every network namespace, so that a test reaches a tool that sees no other network. One
byte on the control socket says that the tool listens. Ends with the tool. Only the standard library: this runs by its path.
"""

import asyncio
import fcntl
import json
import socket
import struct
import subprocess
import sys
from contextlib import suppress

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_TRIES = 600


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _relay(path: str, port: int, control: socket.socket) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pour(reader, inner_writer), _pour(inner_reader, writer))

    for _ in range(_TRIES):
        try:
            _, probe = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            probe.close()
            break
    server = await asyncio.start_unix_server(meet, path)
    control.sendall(b"r")
    async with server:
        await server.serve_forever()


def main() -> None:
    """Do what the JSON in the first argument says."""
    order = json.loads(sys.argv[1])
    _loopback_up()
    with socket.socket(fileno=order["control"]) as control, subprocess.Popen(order["command"]):
        asyncio.run(_relay(order["path"], order["port"], control))


main()
