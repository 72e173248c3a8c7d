"""Telling the nodes of the LAN where the gateway is: mDNS on the named interfaces only.

An interface may have no address yet when the gateway starts (a cable, DHCP): the announcement is tried again until it
holds. It is a hint to nodes and never a condition of serving them, so trouble with it is logged and does not end anything.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NoReturn

from update.errors import ConfigurationError, UnreachableError
from update.wire.service import announce

_LOG = logging.getLogger(__name__)
RETRY_S = 30.0


async def keep_announcing(
    name: str, port: int, interfaces: Sequence[str], *, fingerprint: str = "", retry_s: float = RETRY_S
) -> NoReturn:
    """Announce the gateway until cancelled; then the announcement is taken back. `interfaces` are not empty."""
    while True:
        try:
            async with announce(name, port, interfaces=interfaces, fingerprint=fingerprint) as instance:
                _LOG.info("announced as %s, port %s, on %s", instance, port, ", ".join(interfaces))
                await asyncio.Event().wait()
        except (ConfigurationError, UnreachableError) as error:
            _LOG.warning("not announced by mDNS, next try in %s s: %s (%s)", retry_s, error, error.code)
        await asyncio.sleep(retry_s)
