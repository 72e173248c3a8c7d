"""The driver `swupdate` where things go wrong around the real daemon: gone, interrupted, refusing."""

import asyncio
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState
from node_agent.drivers.installers import swupdate
from tests.contract.devices import Device, quiet
from tests.contract.swupdate_devices import SELECTIONS, SwupdateDaemon, SwupdateReleases, device_at, swupdate_device
from tests.node_agent.doubles import NoChunks
from tests.peers import need_tool
from update.errors import HandlerError

pytestmark = pytest.mark.interop

_PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]
Blocks = Callable[[Path, Callable[[int, int], None]], Iterator[bytes]]


class Halfway:
    """Stops the first bundle in the middle until it may go on."""

    def __init__(self, blocks: Blocks) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._blocks = blocks

    def __call__(self, file: Path, progress: Callable[[int, int], None]) -> Iterator[bytes]:
        for block in self._blocks(file, progress):
            half = len(block) // 2
            yield block[:half]
            self.reached.set()
            assert self.go_on.wait(_PATIENCE_S)
            yield block[half:]


@pytest.fixture
def releases(tmp_path: Path) -> SwupdateReleases:
    (tmp_path / "releases").mkdir()
    return SwupdateReleases(tmp_path / "releases")


@pytest.fixture
def sockets() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swu") as folder:
        yield Path(folder)


@pytest.fixture
def device(tmp_path: Path, sockets: Path, releases: SwupdateReleases) -> Device:
    return device_at(sockets, tmp_path, releases)


@pytest.fixture
def halfway(monkeypatch: pytest.MonkeyPatch) -> Halfway:
    made = Halfway(swupdate._blocks)
    monkeypatch.setattr(swupdate, "_blocks", made)
    monkeypatch.setattr(swupdate, "_PAUSE_S", 0.0)
    return made


async def test_an_agent_that_ends_in_the_middle_leaves_nothing_and_the_next_write_succeeds(
    device: Device, sockets: Path, releases: SwupdateReleases, halfway: Halfway
) -> None:
    empty = device.content("b")
    with SwupdateDaemon(sockets).serving():
        writing = asyncio.create_task(device.driver.write(releases(2).bundle, NoChunks(), quiet))
        assert await asyncio.to_thread(halfway.reached.wait, _PATIENCE_S)
        writing.cancel()
        halfway.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert ((await device.driver.slots())[1].state, device.content("b")) == (SlotState.EMPTY, empty)
        await device.driver.write(releases(2).bundle, NoChunks(), quiet)
    assert (await device.driver.slots())[1].state is SlotState.PENDING


_AGENT = """
import asyncio, sys, time
from node_agent.programs import run_program

def torso():
    yield open(sys.argv[1], "rb").read()[:700_000]
    print("halfway", flush=True)
    time.sleep(600)

asyncio.run(run_program(sys.argv[2:], timeout_s=600, environment={}, feed=torso()))
"""


async def test_the_client_of_a_killed_agent_hands_over_a_torso_that_swupdate_refuses(
    device: Device, sockets: Path, releases: SwupdateReleases
) -> None:
    empty = device.content("b")
    client = ["env", f"TMPDIR={sockets}", need_tool("swupdate-client"), "-e", SELECTIONS["b"]]
    with SwupdateDaemon(sockets).serving():
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _AGENT, releases(2).bundle.file, *client, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert agent.stdout is not None
        assert await agent.stdout.readline() == b"halfway\n"
        agent.kill()
        await agent.wait()
        await device.driver.write(releases(3).bundle, NoChunks(), quiet)
    assert ((await device.driver.slots())[1].version, device.content("b") == empty) == ("3.0", False)


async def test_a_daemon_that_ends_in_the_middle_is_an_error_and_the_next_write_succeeds(
    device: Device, sockets: Path, releases: SwupdateReleases, halfway: Halfway
) -> None:
    with ExitStack() as daemon:
        daemon.enter_context(SwupdateDaemon(sockets).serving())
        writing = asyncio.create_task(device.driver.write(releases(2).bundle, NoChunks(), quiet))
        assert await asyncio.to_thread(halfway.reached.wait, _PATIENCE_S)
        await asyncio.to_thread(daemon.close)
    halfway.go_on.set()
    with pytest.raises(HandlerError, match="see the log of swupdate"):
        await writing
    assert (await device.driver.slots())[1].state is SlotState.EMPTY
    assert device.board.power_on() == "a"
    with SwupdateDaemon(sockets).serving():
        await device.driver.write(releases(2).bundle, NoChunks(), quiet)
    assert (await device.driver.slots())[1].state is SlotState.PENDING


async def test_a_refusal_of_swupdate_is_an_error_and_nothing_is_written(
    tmp_path: Path, releases: SwupdateReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason comes along only if the client lives to read it."""
    monkeypatch.setattr(swupdate, "_PAUSE_S", 0.0)
    with ExitStack() as stack:
        device = swupdate_device(stack, releases, ["-B", "none", "--no-downgrading", "9.0"])(tmp_path)
        empty = device.content("b")
        with pytest.raises(HandlerError, match=r"No downgrading allowed|see the log of swupdate"):
            await device.driver.write(releases(2).bundle, NoChunks(), quiet)
        assert ((await device.driver.slots())[1].state, device.content("b")) == (SlotState.EMPTY, empty)
