"""Looks at the state for everybody who watches the page: at most twice a second, however many they are."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from gateway.status import NodeState
from gateway.web.snapshot import Node, Snapshot, Stick
from media.intake import media_in
from media.records import Stage
from media.signals import signal_of
from update.durable import Disk

LOOK_S: Final = 0.5
_SHOWN_S: Final = 86400
"""A stick that was pulled out is shown for so long."""
MAX_STICKS: Final = 20


class Nodes(Protocol):
    """What knows the nodes."""

    async def nodes(self) -> tuple[NodeState, ...]:
        """All of them, by name."""
        ...


Look = Callable[[], Awaitable[Snapshot]]


class Looking:
    """The newest snapshot. `intake` None: no sticks are taken in here. As long as nothing changes it is the same object."""

    def __init__(
        self,
        status: Nodes,
        intake: tuple[Disk, Path] | None,
        *,
        name: str,
        version: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._intake = intake
        self._name = name
        self._version = version
        self._now = now
        self._clock = clock
        self._lock = asyncio.Lock()
        self._newest: Snapshot | None = None
        self._looked = 0.0

    async def snapshot(self) -> Snapshot:
        """Not older than `LOOK_S`, though its `now` is when it last changed. Errors: `StoreError`."""
        async with self._lock:
            if self._newest is None or self._clock() - self._looked >= LOOK_S:
                fresh = await self._look()
                if self._newest is None or replace(fresh, now=self._newest.now) != self._newest:
                    self._newest = fresh
                self._looked = self._clock()
            return self._newest

    async def _look(self) -> Snapshot:
        nodes = [Node.of(node) for node in await self._status.nodes()]
        sticks = await asyncio.to_thread(self._sticks)
        return Snapshot(self._name, self._version, self._now(), sticks, tuple(nodes))

    def _sticks(self) -> tuple[Stick, ...]:
        """What must stay plugged in first, then the newest."""
        if self._intake is None:
            return ()
        oldest, found = self._now().timestamp() - _SHOWN_S, []
        for intake in media_in(*self._intake):
            state = intake.state()
            signal = None if state is None else signal_of(state, intake.answer())
            if state is not None and signal is not None and (state.stage is not Stage.GONE or signal.since >= oldest):
                found.append(Stick.of(intake.medium, signal))
        return tuple(sorted(found, key=lambda stick: (stick.removable, -stick.since))[:MAX_STICKS])
