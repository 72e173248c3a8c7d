"""Answers to GET and HEAD on immutable content: which bytes, under which head (RFC 9110 sections 13 and 14).

Pure: decides from method, headers, size and digest; `range_response.py` moves the bytes. What stock clients demand
(measured with swupdate 2022.12 and zckdl) is kept exactly:

- several ranges are always answered 206 multipart, parts in request order, the boundary unquoted and lower case after
  `multipart/byteranges; boundary=`;
- `Content-Length` is always known, nothing is compressed, and HEAD is answered 200 whatever ranges it names;
- the ETag is the content's digest: strong, the same on every gateway.

All header values come from our own data, so no client byte can reach a head.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from update.chunks.ranges import Range, multipart_type, parse_range, part_heads, tail
from update.digest import Digest
from update.errors import RangeNotSatisfiableError

MAX_RANGES = 1024
_STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
ANY_BYTES = "application/octet-stream"


class Part(NamedTuple):
    """A piece of the body: bytes that go before it, then `span` of the content."""

    frame: bytes
    span: Range


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is sent. `head` ends before the blank line, so that the connection header can be added."""

    status: HTTPStatus
    head: bytes
    parts: tuple[Part, ...] = ()
    tail: bytes = b""
    body_bytes: int = 0


def wanted_ranges(method: str, headers: Mapping[str, str], size: int, etag: str) -> tuple[Range, ...] | None:
    """Ranges that the request asks for; None for the whole content. Raises `RangeNotSatisfiableError`.

    Range is defined for GET only; If-Range admits only our own strong ETag (RFC 9110 section 13.1.5).
    """
    if method != "GET" or not asks_for_ranges(headers, etag):
        return None
    return parse_range(headers["Range"], size, max_ranges=MAX_RANGES)


def asks_for_ranges(headers: Mapping[str, str], etag: str) -> bool:
    """Whether a GET with these fields wants ranges, be they readable or not."""
    return bool(headers.get("Range")) and headers.get("If-Range", etag) == etag


def etag_of(digest: Digest) -> str:
    """The strong ETag of content: its quoted digest."""
    return f'"{digest}"'


def precondition(headers: Mapping[str, str], etag: str) -> Answer | None:
    """412 or 304 where If-Match or If-None-Match say so, else None."""
    if "If-Match" in headers and not _lists(headers["If-Match"], etag):
        return empty(HTTPStatus.PRECONDITION_FAILED)
    if "If-None-Match" in headers and _lists(headers["If-None-Match"], etag):
        return Answer(HTTPStatus.NOT_MODIFIED, _status(HTTPStatus.NOT_MODIFIED) + f"ETag: {etag}\r\n".encode())
    return None


def whole(size: int, etag: str, *, method: str, kind: str = ANY_BYTES) -> Answer:
    """200 with everything; of HEAD only the head."""
    head = _content_head(HTTPStatus.OK, size, etag, kind) + b"Accept-Ranges: bytes\r\n"
    if method == "HEAD" or size == 0:
        return Answer(HTTPStatus.OK, head)
    return Answer(HTTPStatus.OK, head, (Part(b"", Range(0, size)),), b"", size)


def partial(ranges: tuple[Range, ...], size: int, etag: str, *, kind: str = ANY_BYTES) -> Answer:
    """206: one range plainly, several as multipart in the given order."""
    status = HTTPStatus.PARTIAL_CONTENT
    if len(ranges) == 1:
        span = ranges[0]
        place = f"Content-Range: bytes {span.start}-{span.end - 1}/{size}\r\n"
        head = _content_head(status, span.length, etag, kind) + place.encode()
        return Answer(status, head, (Part(b"", span),), b"", span.length)
    boundary = secrets.token_hex(10)
    frames = part_heads(boundary, ranges, size)
    end = tail(boundary)
    body_bytes = sum(map(len, frames)) + sum(span.length for span in ranges) + len(end)
    head = _content_head(status, body_bytes, etag, multipart_type(boundary))
    return Answer(status, head, tuple(map(Part, frames, ranges)), end, body_bytes)


def not_satisfiable(size: int) -> Answer:
    """416, naming the size."""
    return empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"Content-Range: bytes */{size}\r\n")


def empty(status: HTTPStatus, more: str = "") -> Answer:
    """An answer without a body."""
    return Answer(status, _status(status) + f"{more}Content-Length: 0\r\n".encode())


def answer(method: str, headers: Mapping[str, str], size: int, etag: str, *, kind: str = ANY_BYTES) -> Answer:
    """Everything together, for content of media type `kind` that is completely at hand."""
    if refused := precondition(headers, etag):
        return refused
    try:
        ranges = wanted_ranges(method, headers, size, etag)
    except RangeNotSatisfiableError:
        return not_satisfiable(size)
    return whole(size, etag, method=method, kind=kind) if ranges is None else partial(ranges, size, etag, kind=kind)


def _content_head(status: HTTPStatus, length: int, etag: str, kind: str) -> bytes:
    return _status(status) + f"Content-Type: {kind}\r\nContent-Length: {length}\r\nETag: {etag}\r\n".encode()


def _status(status: HTTPStatus) -> bytes:
    return _STATUS_LINES[status]


def _lists(header: str, etag: str) -> bool:
    """Whether a list of entity tags names ours, or is `*`."""
    return header.strip() == "*" or etag in {item.strip() for item in header.split(",")}
