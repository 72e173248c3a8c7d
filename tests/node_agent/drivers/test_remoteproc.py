"""Firmware that misbehaves, kernels that do, and images that are not for this processor."""

import hashlib
from pathlib import Path

import pytest

from gateway.simulators.cpu import ARM, Behaviour, State, make_firmware
from gateway.simulators.cpu_tree import CpuTree, make_tree
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.remoteproc import RemoteprocConfig, make
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO
from tests.contract.cpu_devices import KernelAttributes, quick
from tests.contract.devices import quiet
from tests.contract.shelf_devices import ImageReleases
from update.durable import Disk
from update.errors import BootloaderError, DeviceImageError, FieldrelayError, HealthError, LimitError, SilentError, SlotError


@pytest.fixture
def tree(tmp_path: Path) -> CpuTree:
    return make_tree(tmp_path, make_firmware("1.0"))


@pytest.fixture
def releases(tmp_path: Path) -> ImageReleases:
    return ImageReleases(tmp_path, "cpu", make_firmware)


def driver_of(tree: CpuTree, **keys: object) -> ShelfDevice:
    config = quick(tree.folder, **{"version_file": None, "start_timeout_s": 0.2, "watch_s": 0.05, **keys})
    return make(config, Surroundings(Disk(), tree.folder / "state", DEMO, NoBootloader()), KernelAttributes(tree.cpu))


def boot_digest(tree: CpuTree) -> str:
    return hashlib.sha256((tree.cpu.firmware_folder / tree.cpu.boot_firmware).read_bytes()).hexdigest()


async def tried(driver: ShelfDevice, releases: ImageReleases) -> None:
    release = releases(2)
    await driver.write(release.bundle, release.chunks, quiet)
    await driver.activate()
    await driver.restart()


async def states(driver: ShelfDevice) -> list[tuple[str, bool]]:
    return [(slot.state.value, slot.booted) for slot in await driver.slots()]


@pytest.mark.parametrize("keeps_crashed", [False, True], ids=["stops-crashed", "refuses-to-stop-crashed"])
@pytest.mark.parametrize("behaviour", [Behaviour.CRASHES, Behaviour.CRASHES_ONCE, Behaviour.DEAD])
async def test_firmware_that_does_not_stay_up_is_noticed_and_taken_back(
    tree: CpuTree, releases: ImageReleases, behaviour: Behaviour, keeps_crashed: bool
) -> None:
    tree.cpu.behaviours["2.0"], tree.cpu.keeps_crashed = behaviour, keeps_crashed
    driver = driver_of(tree)
    with pytest.raises(FieldrelayError) as refusal:
        await tried(driver, releases)
    assert isinstance(refusal.value, HealthError | BootloaderError)
    await driver.revert()
    await driver.restart()
    assert await states(driver) == [("active", True), ("bad", False)]
    assert (tree.cpu.version(), tree.cpu.recovery) == ("1.0", "enabled")


async def test_firmware_that_gives_no_sign_of_life_is_taken_back(tree: CpuTree, releases: ImageReleases) -> None:
    tree.cpu.behaviours["2.0"] = Behaviour.HANGS
    driver = driver_of(tree, version_file=tree.folder / "said")
    (tree.folder / "said").write_text("1.0\n")
    with pytest.raises(FieldrelayError):
        await tried(driver, releases)
    await driver.revert()
    await driver.restart()
    assert tree.cpu.version() == "1.0"


async def test_recovery_is_off_on_trial_and_on_afterwards(tree: CpuTree, releases: ImageReleases) -> None:
    driver, before = driver_of(tree), boot_digest(tree)
    await tried(driver, releases)
    assert (tree.cpu.recovery, boot_digest(tree)) == ("disabled", before)
    await driver.confirm()
    assert tree.cpu.recovery == "enabled"
    assert boot_digest(tree) == hashlib.sha256(make_firmware("2.0")).hexdigest()


async def test_a_crash_while_a_trial_is_held_is_seen_and_not_confirmed(tree: CpuTree, releases: ImageReleases) -> None:
    driver = driver_of(tree)
    await tried(driver, releases)
    tree.cpu.behaviours["2.0"] = Behaviour.CRASHES
    assert await states(driver) == [("confirmed", False), ("bad", True)]
    with pytest.raises(HealthError):
        await driver.confirm()
    assert tree.cpu.state is State.CRASHED


async def test_a_return_to_what_runs_by_its_boot_name_is_not_taken_for_done(tree: CpuTree, releases: ImageReleases) -> None:
    driver = driver_of(tree)
    await tried(driver, releases)
    await driver.confirm()
    tree.power_cycle()  # now 2.0 runs under the name of the boot firmware
    await driver.revert()
    assert await states(driver) == [("confirmed", False), ("bad", True)]
    await driver.restart()
    assert (tree.cpu.version(), boot_digest(tree)) == ("1.0", hashlib.sha256(make_firmware("1.0")).hexdigest())


async def test_the_kernel_is_never_asked_to_switch_what_runs(tree: CpuTree) -> None:
    with pytest.raises(OSError, match="busy"):
        tree.cpu.write("firmware", "other.elf")


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (make_firmware("2.0", machine=62), DeviceImageError),
        (make_firmware("2.0")[:-1], DeviceImageError),
        (b"no firmware at all" * 10, DeviceImageError),
        (make_firmware("2.0", size=300_000), LimitError),
        (make_firmware("1.0"), SlotError),
    ],
    ids=["wrong-machine", "truncated", "no-elf", "too-large", "runs-already"],
)
async def test_an_image_that_cannot_be_meant_is_refused_and_nothing_changes(
    tree: CpuTree, releases: ImageReleases, content: bytes, refusal: type[FieldrelayError]
) -> None:
    driver, starts = driver_of(tree, machine=ARM, slot_bytes=200_000), tree.cpu.starts
    release = releases.release("2.0", content)
    with pytest.raises(refusal):
        await driver.write(release.bundle, release.chunks, quiet)
    assert await states(driver) == [("active", True), ("empty", False)]
    assert tree.cpu.starts == starts


async def test_another_processor_under_this_number_is_left_alone(tree: CpuTree) -> None:
    with pytest.raises(SilentError, match="simulated-cpu"):
        await driver_of(tree, name="motion").slots()


async def test_a_kept_image_that_was_damaged_is_no_way_back(tree: CpuTree, releases: ImageReleases) -> None:
    driver = driver_of(tree)
    await tried(driver, releases)
    await driver.confirm()
    old = hashlib.sha256(make_firmware("1.0")).hexdigest()
    kept = tree.cpu.firmware_folder / f"fieldrelay-{old}.elf"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert [slot.state for slot in await driver.slots()] == [SlotState.EMPTY, SlotState.ACTIVE]
    with pytest.raises(SlotError):
        await driver.revert()
    assert tree.cpu.version() == "2.0"


def test_a_name_with_a_path_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="boot_firmware"):
        RemoteprocConfig(boot_firmware="../secret")
