"""The driver `rauc` where things go wrong around the real service: killed, hung, asked twice, refusing."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState
from node_agent.drivers.installers.rauc_bus import RaucBus
from tests.contract.devices import quiet
from tests.contract.rauc_devices import RaucBoard, RaucReleases, make_driver, rauc_device
from tests.node_agent.doubles import NoChunks
from update.errors import HandlerError

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("loop-devices")]

_PATIENCE_S = 60.0
# Says that it began, and holds the installation until it may go on.
_HOLD = """#!/bin/sh
echo $$ > "{folder}/holding"
n=0; while [ ! -e "{folder}/go" ] && [ $((n += 1)) -lt 1200 ]; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> RaucReleases:
    return RaucReleases(tmp_path_factory.mktemp("r"))


@pytest.fixture
def board(tmp_path: Path, releases: RaucReleases) -> Iterator[RaucBoard]:
    """A device whose installations wait for the file `go`."""
    (tmp_path / "hold").write_text(_HOLD.format(folder=tmp_path))
    (tmp_path / "hold").chmod(0o755)
    with ExitStack() as stack:
        device = rauc_device(stack, releases, handlers=[f"pre-install={tmp_path / 'hold'}"])(tmp_path)
        assert isinstance(device.board, RaucBoard)
        yield device.board


async def _held(folder: Path) -> None:
    """Wait until an installation is under way."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (folder / "holding").exists():
        assert time.monotonic() < deadline, "no installation began"
        await asyncio.sleep(0.05)


async def test_a_service_that_ends_in_the_middle_is_an_error_and_the_next_write_succeeds(
    tmp_path: Path, board: RaucBoard, releases: RaucReleases
) -> None:
    driver = make_driver(board.device, tmp_path)
    writing = asyncio.create_task(driver.write(releases(2).bundle, NoChunks(), quiet))
    await _held(tmp_path)
    await asyncio.to_thread(board.crash)
    with pytest.raises(HandlerError, match="service ended during the installation"):
        await writing
    (tmp_path / "go").touch()
    assert board.power_on() == "a"
    assert (await driver.slots())[1].state is SlotState.EMPTY
    await driver.write(releases(2).bundle, NoChunks(), quiet)
    assert (await driver.slots())[1].state is SlotState.PENDING


async def test_an_installation_whose_end_is_never_told_is_given_up_in_time(
    tmp_path: Path, board: RaucBoard, releases: RaucReleases
) -> None:
    driver = make_driver(board.device, tmp_path, install_timeout_s=2.0)
    with pytest.raises(HandlerError, match="has not told the end"):
        await driver.write(releases(2).bundle, NoChunks(), quiet)
    (tmp_path / "go").touch()
    assert board.power_on() == "a"


async def test_a_killed_agent_leaves_an_installation_that_the_next_one_waits_for(
    tmp_path: Path, board: RaucBoard, releases: RaucReleases
) -> None:
    first = asyncio.create_task(make_driver(board.device, tmp_path).write(releases(2).bundle, NoChunks(), quiet))
    await _held(tmp_path)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    driver = make_driver(board.device, tmp_path)
    second = asyncio.create_task(driver.write(releases(3).bundle, NoChunks(), quiet))
    done, _ = await asyncio.wait({second}, timeout=0.5)
    assert not done
    (tmp_path / "go").touch()
    written = await second
    assert board.device.slot("b").startswith(releases(3).root)
    assert (written.slot, (await driver.slots())[1].version) == ("b", "3.0")


async def test_two_installations_are_made_one_after_the_other(tmp_path: Path, board: RaucBoard, releases: RaucReleases) -> None:
    """RAUC refuses the second one, and even says that it is idle then."""
    service = RaucBus(board.device.address, 30.0, 30.0)
    first = asyncio.create_task(service.install(releases(2).bundle.file, lambda _percent: None, _PATIENCE_S))
    await _held(tmp_path)
    second = asyncio.create_task(service.install(releases(3).bundle.file, lambda _percent: None, _PATIENCE_S))
    done, _ = await asyncio.wait({first, second}, timeout=0.5)
    assert not done
    (tmp_path / "go").touch()
    await first
    await second
    assert board.device.slot("b").startswith(releases(3).root)


async def test_a_refusal_of_rauc_comes_with_its_reason_and_nothing_starts_from_it(
    tmp_path: Path, board: RaucBoard, releases: RaucReleases
) -> None:
    (tmp_path / "go").touch()
    service, before = RaucBus(board.device.address, 30.0, 30.0), board.device.slot("b")
    broken = tmp_path / "broken.raucb"
    content = bytearray(releases(2).bundle.file.read_bytes())
    content[100_000] ^= 1
    broken.write_bytes(content)
    with pytest.raises(HandlerError, match=r"could not install broken\.raucb: .*signature"):
        await service.install(broken, lambda _percent: None, _PATIENCE_S)
    assert (board.device.slot("b"), board.power_on()) == (before, "a")
