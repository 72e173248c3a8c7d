"""HTTP byte ranges, both sides: the Range header, the parts of a multipart answer, and its parser (RFC 9110, section 14).

Rules for requests (server):

1. Only `bytes=` with ASCII digits is understood; any other form is ignored, as if there were no Range (14.2).
2. More than `max_ranges` ranges, or a header above `MAX_HEADER_BYTES`, is ignored too: zckdl takes the 200 as a hint and
   asks again with fewer.
3. Ranges behind the end are dropped; with none left, the answer is 416. Ranges that overlap are refused with 416 as well
   (15.5.17): no client of ours sends them, and so no answer is longer than the file.
4. The order of the request is kept. SWUpdate 2022.12 writes what comes to where it expects it.

Rules for multipart answers: the boundary is sent unquoted and in lower case with one space before it (SWUpdate knows no
other form); on receipt either form, any header case and any order of parts is accepted, within limits. hawkBit (0.3.0M7) ends
the head of a part, which is one Content-Range, without the empty line: so a part begins behind that line where neither the
empty line nor another field follows, and so does every later part of that answer. A first part that begins with a line end, or
like a field, is misread and refused: who asks for one range at a time then gets it.
"""

import re
from collections.abc import Iterable
from enum import Enum, auto
from itertools import pairwise
from operator import le, lt, sub
from typing import Final, NamedTuple

from update.errors import ProtocolError, RangeNotSatisfiableError

MAX_HEADER_BYTES: Final = 32 << 10
MAX_RANGES: Final = 1024
MAX_PART_HEAD_BYTES: Final = 8 << 10
_MAX_BOUNDARY: Final = 70
_SPEC = re.compile(r"(\d{0,19})-(\d{0,19})", re.ASCII)
_PLAIN = re.compile(r"bytes=\d{1,19}-\d{1,19}(?:,\d{1,19}-\d{1,19})*", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_TOKEN = rb"[!#-'*+.^_`|~0-9A-Za-z-]"
_NO_FIELD = rb"(?=:|\r[^\n]|%(t)s{1,64}\r|%(t)s{0,64}[^!#-'*+.^_`|~0-9A-Za-z:\r-]|%(t)s{65})" % {b"t": _TOKEN}
_RANGE_LINE = rb"\r\n[Cc]ontent-[Rr]ange:[ -~\t]{1,80}\r\n"
_FIRST_BARE_HEAD = re.compile(_RANGE_LINE + _NO_FIELD)
"""A part's head without the empty line, as soon as that can be told."""
_BARE_HEAD = re.compile(_RANGE_LINE)
_OWN_BOUNDARY = re.compile(r"[a-z0-9]{1,70}", re.ASCII)


class Range(NamedTuple):
    """`length` bytes from `start`; length at least 1."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length


def parse_range(header: str, size: int, *, max_ranges: int = MAX_RANGES) -> tuple[Range, ...] | None:
    """The ranges asked for, in their order, clipped to `size` bytes; None to answer with the whole file.

    Errors: `RangeNotSatisfiableError`, to be answered 416 with `Content-Range: bytes */size`.
    """
    if ranges := _parse_plain(header, size, max_ranges):
        return ranges
    unit, separator, specs = header.partition("=")
    if len(header) > MAX_HEADER_BYTES or not separator or unit.strip().lower() != "bytes" or specs.count(",") >= max_ranges:
        return None
    asked = [_parse_spec(spec.strip(" \t"), size) for spec in specs.split(",")]
    if None in asked:
        return None
    ranges = tuple(part for part in asked if part is not None and part.length)
    if not ranges:
        raise RangeNotSatisfiableError(f"no range of {header[:80]!r} lies within the {size} bytes there are")
    for before, after in pairwise(sorted(ranges)):
        if before.end > after.start:
            raise RangeNotSatisfiableError(f"ranges overlap at byte {after.start}: ask for each byte once")
    return ranges


def _parse_plain(header: str, size: int, max_ranges: int) -> tuple[Range, ...] | None:
    """The form that clients with hundreds of ranges send, in a quarter of the time: each is `a-b`, ascending, within the file.

    None for every other form, which may be good or bad.
    """
    if len(header) > MAX_HEADER_BYTES or not _PLAIN.fullmatch(header):
        return None
    numbers = list(map(int, header.removeprefix("bytes=").replace("-", ",").split(",")))
    ends = [last + 1 for last in numbers[1::2]]
    starts = numbers[::2]
    if len(starts) > max_ranges or ends[-1] > size or not all(map(lt, starts, ends)) or not all(map(le, ends, starts[1:])):
        return None
    return tuple(map(Range, starts, map(sub, ends, starts)))


_NOTHING: Final = Range(0, 0)


def _parse_spec(spec: str, size: int) -> Range | None:
    """One `a-b`, `a-` or `-n`; empty if it lies behind the end, None if it cannot be understood."""
    match = _SPEC.fullmatch(spec)
    if match is None or spec == "-":
        return None
    first, last = match.groups()
    if not first:
        count = min(int(last), size)
        return Range(size - count, count) if count else _NOTHING
    start, stop = int(first), int(last) if last else size - 1
    if last and start > stop:
        return None
    return Range(start, min(stop, size - 1) - start + 1) if start < size else _NOTHING


def format_range(ranges: Iterable[Range]) -> str:
    """The value of a Range header: `bytes=0-9,20-29`."""
    return "bytes=" + ",".join(f"{part.start}-{part.end - 1}" for part in ranges)


def format_content_range(part: Range, size: int) -> str:
    """The value of a Content-Range header: `bytes 0-9/100`."""
    return f"bytes {part.start}-{part.end - 1}/{size}"


def parse_content_range(value: str) -> tuple[Range, int | None]:
    """Range and total size (None for `*`) of an answer; `ProtocolError` if they contradict each other."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        raise ProtocolError(f"Content-Range is written 'bytes first-last/size': got {value[:80]!r}")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if first > last or (total is not None and last >= total):
        raise ProtocolError(f"Content-Range contradicts itself: {value[:80]!r}")
    return Range(first, last - first + 1), total


def part_heads(boundary: str, parts: Iterable[Range], size: int) -> list[bytes]:
    """What precedes the bytes of each part of a multipart answer from a file of `size` bytes."""
    if not _OWN_BOUNDARY.fullmatch(boundary):
        raise ValueError(f"a boundary is 1 to 70 lower-case letters and digits: got {boundary!r}")
    begin = f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes "
    return [f"{begin}{start}-{start + length - 1}/{size}\r\n\r\n".encode() for start, length in parts]


def part_head(boundary: str, part: Range, size: int) -> bytes:
    """The same of one part."""
    return part_heads(boundary, [part], size)[0]


def tail(boundary: str) -> bytes:
    """What ends a multipart answer."""
    return f"\r\n--{boundary}--\r\n".encode()


def multipart_type(boundary: str) -> str:
    """The Content-Type of a multipart answer, in the one form that SWUpdate reads."""
    return f"multipart/byteranges; boundary={boundary}"


def parse_boundary(content_type: str) -> str | None:
    """The boundary of a multipart answer's Content-Type, unquoted; None if it is another type."""
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != "multipart/byteranges":
        return None
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        boundary = value.strip().removeprefix('"').removesuffix('"')
        if name.strip().lower() == "boundary" and 1 <= len(boundary) <= _MAX_BOUNDARY and boundary.isascii():
            return boundary
    raise ProtocolError(f"a multipart answer without a boundary of 1 to {_MAX_BOUNDARY} characters: {content_type[:120]!r}")


class _At(Enum):
    """Where the parser is."""

    PREAMBLE = auto()
    HEAD = auto()
    BODY = auto()
    DELIMITER = auto()
    END = auto()


class MultipartParser:
    """Takes a multipart/byteranges body piece by piece and gives (offset in the file, bytes) as they come.

    Parts are not collected: only delimiters and part heads wait in memory, `MAX_PART_HEAD_BYTES` at most.
    Errors: `ProtocolError` for anything malformed, for a part of another file size than `size`, for too many parts.
    """

    def __init__(self, boundary: str, *, size: int | None = None, max_parts: int = MAX_RANGES) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._size = size
        self._parts_left = max_parts
        self._at = _At.PREAMBLE
        self._held = b"\r\n"  # the line end before the first delimiter may be missing
        self._offset = 0
        self._left = 0
        self._bare = False

    @property
    def complete(self) -> bool:
        """Whether the closing delimiter has come; a body that ends before it was cut off."""
        return self._at is _At.END

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next piece of the body."""
        events: list[tuple[int, bytes]] = []
        pending = self._held + data
        self._held = b""
        position = 0
        while position < len(pending) and self._at is not _At.END:
            if self._at is _At.BODY:
                piece = pending[position : position + self._left]
                events.append((self._offset, piece))
                position, self._offset, self._left = position + len(piece), self._offset + len(piece), self._left - len(piece)
                self._at = _At.BODY if self._left else _At.DELIMITER
                continue
            after = self._step(pending, position)
            if after is None:
                self._hold(pending[position:])
                break
            position = after
        return events

    def _hold(self, rest: bytes) -> None:
        """Keep what is not complete yet."""
        if len(rest) > MAX_PART_HEAD_BYTES:
            raise ProtocolError(f"multipart answer: {len(rest)} bytes without a delimiter or the end of a part's head")
        self._held = rest

    def _step(self, pending: bytes, position: int) -> int | None:
        """Pass one delimiter or head; None if more bytes are needed."""
        if self._at is _At.HEAD:
            return self._pass_head(pending, position)
        start = pending.find(self._delimiter, 0, MAX_PART_HEAD_BYTES) if self._at is _At.PREAMBLE else position
        marker = start + len(self._delimiter)
        if start < 0 or len(pending) < marker + 2:
            return None
        line_end = pending.find(b"\r\n", marker)
        if not pending.startswith(self._delimiter, start):
            raise ProtocolError(f"multipart answer: a part is not followed by its delimiter but by {pending[start:marker]!r}")
        if pending.startswith(b"--", marker):
            self._at = _At.END
            return len(pending)
        if line_end < 0:
            return None
        if pending[marker:line_end].strip(b" \t"):
            raise ProtocolError(f"multipart answer: a delimiter is followed by {pending[marker : marker + 20]!r}")
        self._at = _At.HEAD
        return line_end  # the head is read with the line end before it: it may have no fields

    def _pass_head(self, pending: bytes, position: int) -> int | None:
        if bare := (_BARE_HEAD if self._bare else _FIRST_BARE_HEAD).match(pending, position):
            self._bare = True
            return self._begin_part(bare[0], bare.end())
        if self._bare:
            return None
        end = pending.find(b"\r\n\r\n", position)
        if end - position > MAX_PART_HEAD_BYTES:
            raise ProtocolError(f"multipart answer: the head of a part has {end - position} bytes")
        return None if end < 0 else self._begin_part(pending[position:end], end + 4)

    def _begin_part(self, head: bytes, begin: int) -> int:
        if not self._parts_left:
            raise ProtocolError("multipart answer: more parts than ranges were asked for")
        part, total = parse_content_range(_content_range_of(head))
        if None not in {total, self._size} and total != self._size:
            raise ProtocolError(f"multipart answer: a part is of a file of {total} bytes, expected {self._size}")
        self._parts_left -= 1
        self._offset, self._left, self._at = part.start, part.length, _At.BODY
        return begin


def _content_range_of(head: bytes) -> str:
    """The one Content-Range among the fields of a part's head."""
    fields = (line.partition(b":") for line in head.split(b"\r\n"))
    values = [value for name, _, value in fields if name.strip().lower() == b"content-range"]
    if len(values) != 1:
        raise ProtocolError(f"multipart answer: a part has {len(values)} Content-Range fields, not one")
    return values[0].decode("latin-1")
