"""Server-sent events, taken apart as they come (HTML living standard 9.2.6), from whoever sends such a stream.

Lines end with LF, CRLF or CR. A line that begins with a colon is a comment: it shows that the stream lives. Fields are `event`,
`data`, `id` and `retry`; others are ignored. An event without data is none.
"""

from dataclasses import dataclass
from typing import Final

from update.errors import EndlessDataError

MAX_EVENT_BYTES: Final = 64 << 10
_MOST_ID: Final = 256
_MOST_RETRY_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. `kind` is `message` where the stream names none."""

    kind: str
    data: str


class StreamReader:
    """Makes events of the bytes of one stream. `last_id` and `retry_s` are what the stream said last; None: nothing."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        self._rest = b""
        self._after_cr = False
        self._kind = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[StreamEvent]:
        """The events that `piece` completes. Errors: `EndlessDataError` for one that does not end."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = piece.endswith(b"\r") or (self._after_cr and not piece)
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        found = [event for line in lines for event in self._end_line(line)]
        self._check(len(self._rest))
        return found

    def _end_line(self, line: bytes) -> list[StreamEvent]:
        if not line:
            return self._end_event()
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._size += len(line)
                self._check(0)
                self._data.append(value)
            case "event":
                self._kind = value[:_MOST_ID]
            case "id" if "\0" not in value and len(value) <= _MOST_ID and value.isascii() and value.isprintable():
                self.last_id = value
            case "retry" if value.isascii() and value.isdecimal() and len(value) <= _MOST_RETRY_DIGITS:
                self.retry_s = int(value) / 1000
        return []

    def _end_event(self) -> list[StreamEvent]:
        found = [StreamEvent(self._kind or "message", "\n".join(self._data))] if self._data else []
        self._kind, self._data, self._size = "", [], 0
        return found

    def _check(self, more: int) -> None:
        if self._size + more > MAX_EVENT_BYTES:
            raise EndlessDataError(f"an event has more than {MAX_EVENT_BYTES} bytes")
