"""Which of the media people are shown, where there is one light for all: what must not be pulled out, then what went wrong.

The state of a medium and what the gateway says of it lie in the folder of intake; they are read again and again, as the gateway
goes on after the medium was pulled out.
"""

import asyncio
from pathlib import Path
from typing import Final, Protocol

from media.intake import Intake, media_in
from media.signals import Signal, foremost, signal_of
from update.durable import Disk

_LOOK_EVERY_S: Final = 1.0


class Shown(Protocol):
    """Whatever shows one signal."""

    def show(self, signal: Signal | None) -> None:
        """From now on."""
        ...


class Showing:
    """Keeps `shown` up to date; `wake` may be called from any thread of the loop's process by `call_soon_threadsafe`."""

    def __init__(self, disk: Disk, root: Path, shown: Shown) -> None:
        self._disk = disk
        self._root = root
        self._shown = shown
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled; then nothing is shown any more."""
        try:
            while True:
                self._shown.show(foremost(await asyncio.to_thread(self._signals)))
                self._news.clear()
                try:
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            self._shown.show(None)

    def _signals(self) -> list[Signal]:
        found = [_signal(intake) for intake in media_in(self._disk, self._root)]
        return [signal for signal in found if signal is not None]


def _signal(intake: Intake) -> Signal | None:
    state = intake.state()
    return None if state is None else signal_of(state, intake.answer())
