"""Keeps the agent of one attached device alive: begun again when it fails, ever more slowly, and never at others' cost.

Each life makes its driver anew, for a tool may have been installed and a port may have come back; the journal says where the
update stood. The agent counts how often it entered a state, so an update in whose middle a driver fails again and again ends.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from gateway.fleet.attached.life import Life
from update.errors import FieldrelayError

_LOG = logging.getLogger(__name__)
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
WELL_AFTER_S: Final = 120.0
HANGS_AFTER_S: Final = 30.0
_STOP_S: Final = 10.0
_sleep = asyncio.sleep


class Keeper:
    """Of one device; `begin` makes a life that has not begun. Never raises."""

    def __init__(self, node: str, driver: str, begin: Callable[[], Life]) -> None:
        self._node = node
        self._driver = driver
        self._begin = begin
        self._life: Life | None = None
        self._trouble = ""
        self._failures = 0

    @property
    def state(self) -> str:
        """How the agent is, for people."""
        life = self._life
        if self._trouble and (life is None or not life.is_well):
            return f"driver {self._driver} failed: {self._trouble}"
        silent_s = 0.0 if life is None else time.monotonic() - life.beat_s
        if silent_s > HANGS_AFTER_S:
            return f"driver {self._driver} hangs for {silent_s:.0f} s: it blocks its thread; restart the gateway to end it"
        return f"driver {self._driver}"

    async def run(self) -> None:
        """For ever: life after life."""
        while True:
            await self._live()
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10))
            _LOG.warning("the agent of %s is begun again in %g s", self._node, pause_s)
            await _sleep(pause_s)

    async def _live(self) -> None:
        life = self._life = self._begin()
        begun_s = time.monotonic()
        try:
            error = await life.run()
        finally:
            self._life = None
            if not await life.stop(_STOP_S):
                _LOG.error("the driver of %s blocks and cannot be stopped; its thread ends with the gateway", self._node)
        if time.monotonic() - begun_s > WELL_AFTER_S:
            self._failures = 0
        self._failures += 1
        self._trouble = _words(error)
        _LOG.error("the agent of %s failed: %s", self._node, self._trouble, exc_info=_unexpected(error))


def _words(error: BaseException | None) -> str:
    if isinstance(error, FieldrelayError):
        return f"{error} ({error.code})"
    return "it ended by itself" if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")


def _unexpected(error: BaseException | None) -> BaseException | None:
    """What needs a stack trace: a defect of a driver."""
    return None if isinstance(error, FieldrelayError) else error
