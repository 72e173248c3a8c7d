"""Run inside fresh namespaces: bring up loopback, open the server's socket there and hand it out, put files in place, exec.

A socket belongs to the network namespace that it was made in: so a server in the test's process can serve a swupdate that
sees no other network. Only the standard library: this runs by its path.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _listen(control: socket.socket, port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", port))
        server.listen(16)
        socket.send_fds(control, [b"s"], [server.fileno()])
        return int(server.getsockname()[1])


def main() -> None:
    """Do what the JSON in the first argument says."""
    order = json.loads(sys.argv[1])
    _loopback_up()
    with socket.socket(fileno=order["control"]) as control:
        port = _listen(control, order["port"])
        control.recv(1)  # the server runs now
    for content, place in order["mounts"]:
        subprocess.run(["mount", "--bind", content, place], check=True)
    if order["proxy"]:
        os.environ["http_proxy"] = f"http://127.0.0.1:{port}"
    os.execvp(order["command"][0], order["command"])  # noqa: S606  # becomes the tool: one process to end


main()
