"""A driver that hangs becomes an error with a name, and never gets two words at once."""

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.fleet.attached import bounded
from gateway.fleet.attached.bounded import BoundedDriver
from node_agent.drivers.driver import Capabilities, ChunkSource, Progress, Restart, SlotStatus, Written
from node_agent.drivers.simulated import SimulatedDriver
from tests.contract.devices import FileChunks, Release, make_release
from update.bundle.verified import AnyBundle
from update.errors import HandlerError, SilentError

LONG_S = 30.0


@dataclass
class Driver:
    """Hangs in the word that it is told to; `stubborn`: even when it is stopped."""

    hangs_in: str = ""
    stubborn: bool = False
    answer: Restart = Restart.DONE
    steps: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    said: list[str] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        return SimulatedDriver.capabilities

    async def _word(self, word: str) -> None:
        self.said.append(word)
        while word == self.hangs_in and not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise

    async def slots(self) -> tuple[SlotStatus, ...]:
        await self._word("slots")
        return ()

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Progress) -> Written:
        for step in range(self.steps):
            await asyncio.sleep(0.1)
            progress(step, self.steps)
        await self._word("write")
        return Written("b", 1, 0, 0, 0)

    async def activate(self) -> None:
        await self._word("activate")

    async def restart(self) -> Restart:
        await self._word("restart")
        return self.answer

    async def confirm(self) -> None:
        await self._word("confirm")

    async def revert(self) -> None:
        await self._word("revert")


@pytest.fixture
def release(tmp_path: object) -> Release:
    return make_release(tmp_path, 1, delta=False)  # type: ignore[arg-type]  # pytest's Path


@pytest.mark.parametrize("word", ["slots", "activate", "restart", "confirm", "revert"])
async def test_a_word_that_does_not_end_fails_and_the_next_one_is_said(word: str) -> None:
    driver = Driver(hangs_in=word)
    limited = BoundedDriver(driver, 0.05)
    with pytest.raises(SilentError, match=f"no further in {word}"):
        await getattr(limited, word)()
    driver.hangs_in = ""
    await limited.slots()


async def test_a_write_may_take_long_as_long_as_it_comes_further(release: Release) -> None:
    limited = BoundedDriver(Driver(steps=12), 1.0)
    await limited.write(release.bundle, FileChunks({}), lambda _done, _total: None)
    with pytest.raises(SilentError, match="write"):
        await BoundedDriver(Driver(hangs_in="write"), 0.05).write(release.bundle, FileChunks({}), lambda _done, _total: None)


async def test_a_word_that_cannot_be_stopped_keeps_all_others_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_END_S", 0.05)
    driver = Driver(hangs_in="revert", stubborn=True)
    limited = BoundedDriver(driver, 0.05)
    with pytest.raises(SilentError, match="no further in revert"):
        await limited.revert()
    with pytest.raises(SilentError, match="still hangs in revert"):
        await limited.slots()
    assert driver.said == ["revert"]
    driver.let_go.set()
    await asyncio.sleep(0)
    async with asyncio.timeout(LONG_S):
        while "slots" not in driver.said:
            try:
                await limited.slots()
            except SilentError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("answer", [Restart.BY_EXIT, Restart.COMMANDED])
async def test_a_driver_that_would_restart_the_gateways_machine_is_refused(answer: Restart) -> None:
    with pytest.raises(HandlerError, match=str(answer)):
        await BoundedDriver(Driver(answer=answer), LONG_S).restart()
