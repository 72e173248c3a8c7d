"""What is shown where there is one light for all media."""

import asyncio
from pathlib import Path

from media.intake import Intake
from media.records import MediumState, Stage
from media.showing import Showing
from media.signals import Show, Signal
from update.durable import Disk


class Light:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.shown: list[Show | None] = []
        self.news = asyncio.Event()

    def show(self, signal: Signal | None) -> None:
        self.shown.append(None if signal is None else signal.show)
        self.news.set()

    async def until(self, show: Show) -> None:
        async with asyncio.timeout(60):
            while self.shown[-1:] != [show]:
                await self.news.wait()
                self.news.clear()


def put(folder: Path, name: str, stage: Stage, since: int) -> None:
    intake = Intake(Disk(), folder, name)
    intake.begin()
    intake.write_state(MediumState(medium=name, label=name, stage=stage, since=since))


async def test_what_must_not_be_pulled_out_comes_first_and_nothing_is_shown_at_the_end(tmp_path: Path) -> None:
    put(tmp_path, "one", Stage.SAFE, 5)
    light = Light()
    showing = Showing(Disk(), tmp_path, light)
    running = asyncio.create_task(showing.run())
    await light.until(Show.SAFE)
    put(tmp_path, "two", Stage.CHECKING, 1)
    showing.wake()
    await light.until(Show.CHECKING)
    put(tmp_path, "two", Stage.GONE, 9)
    showing.wake()
    await light.until(Show.SAFE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert light.shown[-1] is None
