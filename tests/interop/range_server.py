"""A file server with byte ranges for one test: files by URL, as origin or as forward proxy, and a list of what was asked."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from urllib.parse import urlsplit

from update.chunks.ranges import format_content_range, multipart_type, parse_range, part_head, tail

_BOUNDARY = "fieldrelay0test0boundary"


class RangeServer:
    """Serves `files` (path -> content); `requests` are (path, Range header), `sent` the bytes of all bodies."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.requests: list[tuple[str, str]] = []
        self.sent = 0

    @contextmanager
    def __call__(self, listening: socket) -> Iterator[None]:
        """Serve on the socket in a thread while the context lasts."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(10)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, ranges = urlsplit(self.path).path, self.headers.get("Range", "")
                outer.requests.append((path, ranges))
                status, headers, body = outer.answer(path, ranges)
                outer.sent += len(body)
                head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                # One write: SWUpdate looks for the boundary only in the first piece that it receives.
                self.wfile.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the name is the library's
                pass

        return Handler

    def answer(self, path: str, header: str) -> tuple[str, dict[str, str], bytes]:
        """Status, headers and body for one request."""
        content = self.files.get(path)
        if content is None:
            return "404 Not Found", {}, b""
        size = len(content)
        ranges = parse_range(header, size) if header else None
        if ranges is None:
            return "200 OK", {"Accept-Ranges": "bytes"}, content
        if len(ranges) == 1:
            part = ranges[0]
            return "206 Partial Content", {"Content-Range": format_content_range(part, size)}, content[part.start : part.end]
        parts = (part_head(_BOUNDARY, part, size) + content[part.start : part.end] for part in ranges)
        body = b"".join(parts) + tail(_BOUNDARY)
        return "206 Partial Content", {"Content-Type": multipart_type(_BOUNDARY)}, body
