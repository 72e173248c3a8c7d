"""The rules of `node_agent.drivers.driver`, kept by every driver."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node_agent.drivers.driver import Restart, SlotState, bundle_identity
from tests.contract.boards import Board
from tests.contract.devices import Device, DeviceMaker, Release, quiet
from tests.contract.kinds import KINDS, Kind, Releases, parameters
from tests.replay import Killed
from update.durable import Disk, Operation
from update.errors import BootloaderError, SlotError

_STATES = tuple[tuple[str, str, bool, bool], ...]


@pytest.fixture(scope="module", params=parameters())
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def releases(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return kind.supply(tmp_path_factory.mktemp("r"))


@pytest.fixture
def make_device(kind: Kind, releases: Releases) -> Iterator[DeviceMaker]:
    with ExitStack() as stack:
        yield kind.maker(stack, releases)


@pytest.fixture
def device(make_device: DeviceMaker, tmp_path: Path) -> Device:
    return make_device(tmp_path)


async def _states(device: Device) -> _STATES:
    return tuple((slot.name, slot.state.value, slot.booted, slot.trial) for slot in await device.driver.slots())


async def _install(device: Device, release: Release) -> None:
    await device.driver.write(release.bundle, release.chunks, quiet)
    await device.driver.activate()
    device.board.power_on()
    await device.driver.confirm()


async def _fail_the_trial(device: Device, kind: Kind) -> None:
    """Start until the device gives the trial up; one that never does is taken back."""
    starts = kind.starts or 3
    assert [device.board.power_on() for _ in range(starts)] == ["b"] * starts
    if not kind.starts:
        await device.driver.revert()
    assert device.board.power_on() == "a"


async def test_a_factory_device_runs_slot_a_and_has_an_empty_one(device: Device) -> None:
    assert await _states(device) == (("a", "active", True, False), ("b", "empty", False, False))


async def test_writing_changes_neither_what_runs_nor_what_starts_next(device: Device, releases: Releases) -> None:
    running, environment = device.content("a"), device.board.decides()
    written = await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    assert written.slot == "b"
    assert device.content("a") == running
    assert device.board.decides() == environment
    assert await _states(device) == (("a", "active", True, False), ("b", "pending", False, False))
    assert device.board.power_on() == "a"


async def test_a_whole_update_and_the_next_one_in_the_other_slot(device: Device, releases: Releases, kind: Kind) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    assert await _states(device) == (("a", "active", True, False), ("b", "pending", False, True))
    assert await device.driver.restart() is kind.restart
    if kind.restart is Restart.BY_EXIT:
        assert device.board.power_on() == "b"
    assert await _states(device) == (("a", "confirmed", False, False), ("b", "pending", True, True))
    await device.driver.confirm()
    assert await _states(device) == (("a", "confirmed", False, False), ("b", "active", True, False))
    assert {device.board.power_on() for _ in range(4)} == {"b"}
    await _install(device, releases(3))
    slots = await device.driver.slots()
    assert await _states(device) == (("a", "active", True, False), ("b", "confirmed", False, False))
    assert [slot.version for slot in slots] == ["3.0", "2.0"]
    assert [slot.bundle for slot in slots] == [bundle_identity(releases(3).bundle), bundle_identity(releases(2).bundle)]


async def test_a_trial_nobody_confirms_returns_and_the_slot_is_bad(device: Device, releases: Releases, kind: Kind) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    await _fail_the_trial(device, kind)
    assert await _states(device) == (("a", "active", True, False), ("b", "bad", False, False))
    with pytest.raises(SlotError):
        await device.driver.activate()
    if kind.starts:  # else it was taken back by hand, and what runs was confirmed all the time
        with pytest.raises(SlotError):
            await device.driver.confirm()
    await device.driver.revert()
    assert await _states(device) == (("a", "active", True, False), ("b", "bad", False, False))


async def test_a_bad_slot_is_written_again_and_tried_again(device: Device, releases: Releases, kind: Kind) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    await _fail_the_trial(device, kind)
    await device.driver.write(releases(3).bundle, releases(3).chunks, quiet)
    assert await _states(device) == (("a", "active", True, False), ("b", "pending", False, False))
    await device.driver.activate()
    assert device.board.power_on() == "b"
    await device.driver.confirm()
    assert await _states(device) == (("a", "confirmed", False, False), ("b", "active", True, False))


async def test_a_running_trial_is_reverted(device: Device, releases: Releases) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    device.board.power_on()
    await device.driver.revert()
    await device.driver.revert()
    assert device.board.power_on() == "a"
    assert await _states(device) == (("a", "active", True, False), ("b", "bad", False, False))
    await device.driver.revert()
    assert device.board.power_on() == "a"


async def test_an_activation_is_reverted_before_the_restart(device: Device, releases: Releases) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    await device.driver.revert()
    assert await _states(device) == (("a", "active", True, False), ("b", "bad", False, False))
    assert device.board.power_on() == "a"


async def test_a_confirmed_version_can_be_left_for_the_one_before(device: Device, releases: Releases) -> None:
    await _install(device, releases(2))
    await device.driver.revert()
    await device.driver.revert()
    assert device.board.power_on() == "a"
    assert await _states(device) == (("a", "active", True, False), ("b", "bad", False, False))
    await device.driver.revert()
    assert device.board.power_on() == "a"


async def test_there_is_no_return_to_an_empty_slot(device: Device) -> None:
    with pytest.raises(SlotError):
        await device.driver.revert()
    assert device.board.power_on() == "a"


async def test_reverting_what_was_only_written_changes_nothing(device: Device, releases: Releases) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    before = device.board.decides()
    await device.driver.revert()
    assert device.board.decides() == before
    assert await _states(device) == (("a", "active", True, False), ("b", "pending", False, False))


async def test_nothing_is_written_while_the_inactive_slot_is_the_way_back(device: Device, releases: Releases) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    for start in (False, True):
        if start:
            device.board.power_on()
        contents = {slot: device.content(slot) for slot in ("a", "b")}
        with pytest.raises(SlotError):
            await device.driver.write(releases(3).bundle, releases(3).chunks, quiet)
        assert {slot: device.content(slot) for slot in ("a", "b")} == contents
    await device.driver.revert()
    with pytest.raises(SlotError):
        await device.driver.write(releases(3).bundle, releases(3).chunks, quiet)
    device.board.power_on()
    await device.driver.write(releases(3).bundle, releases(3).chunks, quiet)


async def test_words_said_twice_are_as_if_said_once(device: Device, releases: Releases) -> None:
    first = await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    content = device.content("b")
    second = await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    assert (second.parts, second.image_bytes, device.content("b")) == (first.parts, first.image_bytes, content)
    await device.driver.activate()
    await device.driver.activate()
    device.board.power_on()
    await device.driver.activate()
    await device.driver.confirm()
    await device.driver.confirm()
    assert await _states(device) == (("a", "confirmed", False, False), ("b", "active", True, False))


async def test_only_what_was_written_completely_is_activated(device: Device) -> None:
    before = device.board.decides()
    with pytest.raises(SlotError):
        await device.driver.activate()
    assert device.board.decides() == before


async def test_nothing_is_confirmed_while_the_old_slot_runs(device: Device, releases: Releases) -> None:
    await device.driver.write(releases(2).bundle, releases(2).chunks, quiet)
    await device.driver.activate()
    with pytest.raises(SlotError):
        await device.driver.confirm()
    assert device.board.power_on() == "b"


@pytest.mark.parametrize("kind", parameters(variables=True), indirect=True)
async def test_the_bundles_variables_wait_for_the_switch(device: Device, releases: Releases) -> None:
    release = releases(2, bootenv=[{"name": "release", "value": "2.0"}, {"name": "board", "value": ""}])
    assert isinstance(device.board, Board)
    await device.driver.write(release.bundle, release.chunks, quiet)
    assert device.board.environment.read().get("release", "") == ""
    assert device.board.environment.read()["board"] == "demo"
    await device.driver.activate()
    variables = device.board.environment.read()
    assert (variables["release"], variables.get("board", ""), variables["bootslot"]) == ("2.0", "", "b")


@pytest.mark.parametrize("kind", parameters(variables=True), indirect=True)
async def test_variables_that_break_the_switch_are_refused_before_anything_is_written(device: Device, releases: Releases) -> None:
    release = releases(2, bootenv=[{"name": "bootlimit", "value": "0"}])
    before = device.content("b")
    with pytest.raises(BootloaderError):
        await device.driver.write(release.bundle, release.chunks, quiet)
    assert device.content("b") == before
    assert (await device.driver.slots())[1].state is SlotState.EMPTY


async def test_progress_grows_to_the_whole(device: Device, releases: Releases) -> None:
    seen: list[tuple[int, int]] = []
    await device.driver.write(releases(2).bundle, releases(2).chunks, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


async def test_killed_anywhere_the_device_starts_something_whole_and_the_same_update_succeeds_afterwards(
    make_device: DeviceMaker, releases: Releases, tmp_path: Path, kind: Kind
) -> None:
    """Stop at every operation of the disk in turn; between them every word ends in a state it can be said again from."""
    total = await _count_operations(make_device, releases(2), tmp_path)
    step = max(1, total // (5 if kind.costly else 25))
    for number in range(0, total, step):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        fuse = _Fuse(number)
        device = make_device(folder, Disk(fuse.burn))
        running = device.content("a")
        fuse.armed = True
        with pytest.raises(Killed):
            await _install(device, releases(2))
        fuse.armed = False
        if device.board.power_on() == "a":
            assert device.content("a") == running or device.slot_files["a"][0].suffix == ".json"
            await _finish(device, releases(2))
        else:
            await device.driver.confirm()
        assert await _states(device) == (("a", "confirmed", False, False), ("b", "active", True, False))
        assert {device.board.power_on() for _ in range(3)} == {"b"}


async def _finish(device: Device, release: Release) -> None:
    """What the agent does after a restart in the old slot."""
    if (await device.driver.slots())[1].state is not SlotState.PENDING:
        await device.driver.write(release.bundle, release.chunks, quiet)
    await device.driver.activate()
    assert device.board.power_on() == "b"
    await device.driver.confirm()


async def _count_operations(make_device: DeviceMaker, release: Release, tmp_path: Path) -> int:
    folder = tmp_path / "counted"
    folder.mkdir()
    fuse = _Fuse(1 << 30)
    device = make_device(folder, Disk(fuse.burn))
    fuse.armed = True
    await _install(device, release)
    return fuse.burnt


class _Fuse:
    """Kills the process at the given operation, once armed."""

    def __init__(self, length: int) -> None:
        self.burnt = 0
        self.armed = False
        self._length = length

    def burn(self, _operation: Operation) -> None:
        if self.armed:
            if self.burnt == self._length:
                self.armed = False
                raise Killed
            self.burnt += 1
