"""wfx's stream of events, taken apart as it comes (server-sent events, HTML living standard 9.2.6).

An event only says that a job is worth a look: what is to be done is read from the job itself. So what cannot be read, is not of
a known form or was missed costs time until the next poll, and nothing else.
"""

from typing import Final

from gateway.north.wfx.messages import Event, decode
from update.errors import EndlessDataError, ProtocolError

MAX_EVENT_BYTES: Final = 2 << 20
_DATA = b"data:"


class EventReader:
    """Makes events of the bytes of one stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes. Errors: `EndlessDataError` for one that does not end."""
        *lines, rest = piece.split(b"\n")
        found: list[Event] = []
        for line in lines:
            self._line += line
            found += self._end_line(bytes(self._line).removesuffix(b"\r"))
            self._line.clear()
        self._line += rest
        if self._size + len(self._line) > MAX_EVENT_BYTES:
            raise EndlessDataError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        return found

    def _end_line(self, line: bytes) -> list[Event]:
        if line.startswith(_DATA):
            self._data.append(line.removeprefix(_DATA).removeprefix(b" "))
            self._size += len(line)
            if self._size > MAX_EVENT_BYTES:
                raise EndlessDataError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        if line or not self._data:
            return []
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return [decode(Event, data)]
        except ProtocolError:  # something newer: the next poll sees what it was about
            return []
