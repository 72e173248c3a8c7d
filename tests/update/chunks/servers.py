"""HTTP servers with byte ranges for the tests of this folder: one on our own parser and parts, and a real nginx."""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.peers import need_tool
from update.chunks.ranges import Range, format_content_range, multipart_type, parse_range, part_head, tail

BOUNDARY = "00112233445566778899"


class CountingServer(ThreadingHTTPServer):
    """Serves one folder; `sent` holds the bytes of every body, in order."""

    def __init__(self, folder: Path, max_ranges: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.max_ranges = max_ranges
        self.sent: list[tuple[int, int]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, CountingServer)
        content = (self.server.folder / Path(self.path).name).read_bytes()
        ranges = parse_range(self.headers.get("Range", ""), len(content), max_ranges=self.server.max_ranges)
        status, headers, body = _answer(content, ranges)
        self.server.sent.append((status, len(body)))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # zckdl leaves when it is sent the whole file
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def _answer(content: bytes, ranges: tuple[Range, ...] | None) -> tuple[int, dict[str, str], bytes]:
    if ranges is None:
        return HTTPStatus.OK, {}, content
    if len(ranges) == 1:
        place = format_content_range(ranges[0], len(content))
        return HTTPStatus.PARTIAL_CONTENT, {"Content-Range": place}, content[ranges[0].start : ranges[0].end]
    parts = (part_head(BOUNDARY, part, len(content)) + content[part.start : part.end] for part in ranges)
    return HTTPStatus.PARTIAL_CONTENT, {"Content-Type": multipart_type(BOUNDARY)}, b"".join(parts) + tail(BOUNDARY)


@contextmanager
def counting_server(folder: Path, *, max_ranges: int = 300) -> Iterator[tuple[str, CountingServer]]:
    """The URL of the folder, and the server."""
    server = CountingServer(folder, max_ranges)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def nginx(folder: Path, work: Path) -> Iterator[str]:
    """The address of an nginx that serves the folder; it inherits a socket that listens already, so nobody waits for it."""
    program = need_tool("nginx")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        configuration = work / "nginx.conf"
        configuration.write_text(
            f"daemon off; worker_processes 1; user {getpass.getuser()}; pid {work}/pid; error_log {work}/error.log;\n"
            "events {}\n"
            f"http {{ access_log off; client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;\n"
            f"uwsgi_temp_path {work}/d; scgi_temp_path {work}/e;\n"
            f"server {{ listen {address}; root {folder}; }} }}\n"
        )
        listener.set_inheritable(True)
        process = subprocess.Popen(
            [program, "-c", configuration, "-e", f"{work}/error.log"],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield address
        finally:
            process.terminate()
            process.wait(10)
