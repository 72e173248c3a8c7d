"""Which requests leave nothing to decide: GET for ranges, in a form that has one meaning only. Pure; for the fast lane.

1. HTTP/1.1, in one piece of at most `MAX_HEAD_BYTES` beside its ranges; the path plain, without escapes and query; one Host.
2. One Range field of ranges `a-b`, as `update.chunks.ranges` reads them; suffixes and open ends go the long way.
3. No field that changes what is meant: conditions, a body, an end of the connection.
"""

import re
from typing import Final

from update.chunks.ranges import Range, parse_range
from update.errors import RangeNotSatisfiableError

MAX_HEAD_BYTES: Final = 4096
_HEAD = re.compile(rb"GET (/[A-Za-z0-9._~/+-]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]{1,64}:[\t -~]*\r\n)+)\r\n")
_HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_RANGE = re.compile(rb"\r\n[Rr]ange: ?(bytes=[0-9]{1,19}-[0-9]{1,19}(?:,[0-9]{1,19}-[0-9]{1,19})*)(?=\r\n)")
_DECISIVE: Final = frozenset(
    {"content-length", "transfer-encoding", "expect", "upgrade", "range", "if-match", "if-none-match", "if-range", "trailer"}
)
"""Fields that make another request of it; every other one is ignored here as it is behind the router."""


def split_range(data: bytes) -> tuple[bytes, str] | None:
    """What was received without its Range field, and the value of that field; None without such ranges."""
    found = _RANGE.search(data)
    if found is None or len(data) - len(found[0]) > MAX_HEAD_BYTES:
        return None
    return data[: found.start()] + data[found.end() :], found[1].decode("ascii")


def named_by(head: bytes) -> tuple[str, str] | None:
    """Host field and path of a whole head without its Range field; None if it is not simple."""
    match = _HEAD.fullmatch(head)
    if match is None:
        return None
    lines = match[2].decode("ascii").splitlines()
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if any(name in _DECISIVE or (name == "connection" and value.lower() != "keep-alive") for name, value in fields):
        return None
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return None
    return hosts[0], match[1].decode("ascii")


def ranges_in(value: str, size: int) -> tuple[Range, ...] | None:
    """The ranges of a field that `split_range` found; None if they are not to be answered 206."""
    try:
        return parse_range(value, size)
    except RangeNotSatisfiableError:
        return None
