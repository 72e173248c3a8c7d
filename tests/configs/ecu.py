"""An ECU that is flashed by UDS, one message per datagram, in a thread: only what the example asks for (ISO 14229-1)."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BLOCK = 514  # of a transfer, with service and sequence number


@dataclass(slots=True)
class Ecu:
    """Its flash begins with its version and a line feed. An answer of one byte is a refusal.

    `breaks_after`: blocks until the power is cut, once.
    """

    flash: bytes
    port: int = 0
    breaks_after: int | None = None
    unlocked: bool = False
    written: bytes | None = None
    services: list[int] = field(default_factory=list)

    def answer(self, request: bytes) -> bytes | None:
        service = request[0]
        self.services.append(service)
        known: dict[int, Callable[[bytes], bytes | None]] = {
            0x10: self._session,
            0x27: self._unlock,
            0x31: self._routine,
            0x22: self._read,
            0x11: self._reset,
        }
        known |= {0x34: self._begin, 0x36: self._take, 0x37: self._end}
        answer = known[service](request) if service in known else b"\x11"
        if answer is None:
            return None
        return bytes([service + 0x40]) + answer if len(answer) != 1 else bytes([0x7F, service]) + answer

    def _session(self, request: bytes) -> bytes:
        return request[1:2] + bytes([0, 50, 1, 244])

    def _unlock(self, request: bytes) -> bytes:
        if request[1] == 1:
            return b"\x01seed"
        self.unlocked = request[2:] == b"seed"[::-1]
        return request[1:2] + b"\0" if self.unlocked else b"\x35"

    def _routine(self, request: bytes) -> bytes:
        if not self.unlocked:
            return b"\x33"
        if request[2:4] == b"\xff\x00":
            self.flash = b""
        return request[1:4]

    def _begin(self, _request: bytes) -> bytes:
        self.written = b""
        return b"\x20" + BLOCK.to_bytes(2, "big")

    def _take(self, request: bytes) -> bytes | None:
        if self.written is None:
            return b"\x24"
        if self.breaks_after == 0:
            self.breaks_after, self.written, self.unlocked = None, None, False
            return None
        if self.breaks_after is not None:
            self.breaks_after -= 1
        self.written += request[2:]
        return request[1:2] + b"\0"

    def _end(self, _request: bytes) -> bytes:
        if self.written is None:
            return b"\x24"
        self.flash, self.written = self.written, None
        return b""

    def _reset(self, request: bytes) -> bytes:
        self.unlocked = False
        return request[1:2] + b"\0"

    def _read(self, request: bytes) -> bytes:
        return request[1:3] + self.flash.partition(b"\n")[0] if self.flash else b"\x22"


@contextmanager
def served(ecu: Ecu) -> Iterator[Ecu]:
    """The ECU on a port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        line.settimeout(0.1)
        ecu.port = line.getsockname()[1]
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    request, sender = line.recvfrom(4096)
                except TimeoutError:
                    continue
                if (answer := ecu.answer(request)) is not None:
                    line.sendto(answer, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ecu
        finally:
            done.set()
            thread.join(30)
