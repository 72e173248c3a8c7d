"""What the service manager wants to know: ready, stopping, still alive (sd_notify(3)).

Datagrams to the socket named in `$NOTIFY_SOCKET`; without that variable nobody listens and nothing is sent.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping

_LOG = logging.getLogger(__name__)


class ServiceManager:
    """Talks to the service manager that the `environment` names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog_us = environment.get("WATCHDOG_USEC", "")

    def tell(self, *lines: str) -> None:
        """Send `NAME=value` lines in one datagram; a manager that is gone is no reason to end."""
        if not self._address:
            return
        abstract = self._address.startswith("@")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.connect("\0" + self._address[1:] if abstract else self._address)
                connection.sendall("\n".join(lines).encode())
        except OSError as error:
            _LOG.warning("cannot tell the service manager at %s: %s", self._address, error)

    @property
    def interval_s(self) -> float | None:
        """How often it wants a sign of life: half of its patience; None if it does not watch."""
        return int(self._watchdog_us) / 2_000_000 if self._watchdog_us.isdecimal() else None

    async def keep_alive(self) -> None:
        """Give signs of life until cancelled: they come from the event loop, so a loop that hangs is noticed."""
        while (interval_s := self.interval_s) is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(interval_s)
