"""An FPGA behind a flash chip that is treated badly: power cuts at every block, bitstreams that do not load, other chips."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.simulators.fpga import GOLDEN, GOLDEN_VERSION, Fpga, FpgaFaults, create_fpga, make_bitstream, read_version
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.fpga_flash import create
from node_agent.drivers.shelf.device import ShelfDevice
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.contract.devices import quiet
from tests.contract.fpga_devices import REGION_BYTES, bitstream, dummy, flash_config, fpga_releases
from tests.peers import need_tool
from tests.replay import Killed
from update.bundle.verified import VerifiedBundle
from update.durable import Disk, Kind, Operation
from update.errors import (
    BundleError,
    ConfigurationError,
    DescriptionError,
    FieldrelayError,
    FlashError,
    HandlerError,
    HardwareError,
    HealthError,
    ReadBackError,
    SilentError,
    SlotError,
)


@dataclass(slots=True)
class Bench:
    """One FPGA, drivers for it, and releases."""

    folder: Path
    fpga: Fpga
    updates: tuple[str, ...] = ("update",)

    def driver(self, **keys: object) -> ShelfDevice:
        return self.driver_on(Disk(), **keys)

    def driver_on(self, disk: Disk, **keys: object) -> ShelfDevice:
        surroundings = Surroundings(disk, self.folder / "state", DEMO, NoBootloader())
        return create(flash_config(self.fpga, self.updates, **keys), surroundings)

    def bundle(self, version: str, content: bytes | None = None, **more: object) -> VerifiedBundle:
        data = bitstream(version) if content is None else content
        description = describe(version=version, images=[image("f.bin", data, device="fpga", type="raw")], **more)  # type: ignore[arg-type] # of describe
        return verified(signed(self.folder, description, {"f.bin": data}, name=f"{version}-{len(data)}.swu"))

    async def update(self, driver: ShelfDevice, version: str = "2.0") -> None:
        release = fpga_releases(self.folder).release(version, bitstream(version))
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        await driver.restart()
        await driver.confirm()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, create_fpga(tmp_path / "fpga", factory=bitstream("1.0"), region_bytes=REGION_BYTES))


async def _states(driver: ShelfDevice) -> list[tuple[SlotState, bool]]:
    return [(slot.state, slot.booted) for slot in await driver.slots()]


async def test_a_power_cut_at_every_block_ends_in_golden_or_a_whole_image_and_is_resumed(bench: Bench) -> None:
    golden = bench.fpga.content(GOLDEN)
    total, seen = 0, set()
    release = fpga_releases(bench.folder).release("2.0", bitstream("2.0"))
    for cut in range(40):
        folder = bench.folder / str(cut)
        torn = Bench(folder, create_fpga(folder / "fpga", factory=bitstream("1.0"), region_bytes=REGION_BYTES))
        writes = _Cut(torn.fpga.chip, cut)
        driver = torn.driver_on(Disk(writes))
        await driver.write(release.bundle, release.chunks, quiet)
        await driver.activate()
        try:
            await driver.restart()
            total = writes.count
            break
        except Killed:
            seen.add(torn.fpga.load())
        assert torn.fpga.content(GOLDEN) == golden
        resumed = torn.driver()
        await resumed.restart()
        await resumed.confirm()
        assert torn.fpga.load() == "2.0"
        assert read_version(torn.fpga.content("update")) == "2.0"
    assert total >= 2 * REGION_BYTES // 4096
    assert seen <= {"1.0", "2.0", GOLDEN_VERSION}
    assert GOLDEN_VERSION in seen


class _Cut:
    """The power goes at the given write to the chip, after half of it."""

    def __init__(self, chip: Path, at: int) -> None:
        self.count = 0
        self._chip = chip
        self._at = at

    def __call__(self, operation: Operation) -> None:
        if operation.path != self._chip or operation.kind is not Kind.WRITE:
            return
        self.count += 1
        if self.count - 1 == self._at:
            with self._chip.open("r+b") as chip:
                chip.seek(operation.offset)
                chip.write(bytes(operation.data)[: len(operation.data) // 2])
            raise Killed


async def test_a_bitstream_that_does_not_load_is_told_and_taken_back(bench: Bench) -> None:
    driver = bench.driver()
    FpgaFaults(refused=("2.0",)).keep(bench.fpga.folder)
    with pytest.raises(HealthError, match="fell back to its golden"):
        await bench.update(driver)
    assert bench.fpga.version() == GOLDEN_VERSION
    with pytest.raises(FieldrelayError):
        await driver.confirm()
    await driver.revert()
    await driver.restart()
    assert bench.fpga.load() == "1.0"
    assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_a_bitstream_that_hangs_is_told_and_taken_back(bench: Bench) -> None:
    driver = bench.driver(start_timeout_s=0.3)
    FpgaFaults(mute=("2.0",)).keep(bench.fpga.folder)
    with pytest.raises(SilentError):
        await bench.update(driver)
    await driver.revert()
    await driver.restart()
    assert bench.fpga.version() == "1.0"
    assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_an_empty_region_is_a_way_back_to_the_golden_bitstream(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create_fpga(tmp_path / "fpga", factory=None, region_bytes=REGION_BYTES))
    driver = bench.driver()
    first, _ = await driver.slots()
    assert first.version == GOLDEN_VERSION
    await bench.update(driver)
    assert bench.fpga.load() == "2.0"
    await driver.revert()
    await driver.restart()
    assert bench.fpga.load() == GOLDEN_VERSION
    assert set(bench.fpga.content("update")) == {0xFF}
    assert await _states(driver) == [(SlotState.ACTIVE, True), (SlotState.BAD, False)]


async def test_with_two_regions_what_runs_stays_on_the_chip_and_is_selected_again(tmp_path: Path) -> None:
    updates = ("first", "second")
    bench = Bench(
        tmp_path, create_fpga(tmp_path / "f", factory=bitstream("1.0"), updates=updates, region_bytes=REGION_BYTES), updates
    )
    driver = bench.driver()
    assert driver.capabilities.way_back == "by switching"
    await bench.update(driver)
    assert (bench.fpga.selected(), read_version(bench.fpga.content("first"))) == ("second", "1.0")
    await driver.revert()
    await driver.restart()
    assert (bench.fpga.selected(), bench.fpga.version()) == ("first", "1.0")
    assert read_version(bench.fpga.content("second")) == "2.0"


async def test_what_must_not_go_in_is_refused_before_anything_is_touched(bench: Bench) -> None:
    before, driver = bench.fpga.chip.read_bytes(), bench.driver()
    large = make_bitstream("2.0", bytes(REGION_BYTES))
    cases: list[tuple[VerifiedBundle, type[FieldrelayError]]] = [
        (bench.bundle("2.0", large), BundleError),
        (bench.bundle("2.1", hardware=["9.9"]), HardwareError),
        (bench.bundle("1.0"), SlotError),
    ]
    chunks = fpga_releases(bench.folder).release("3.0", b"x").chunks
    for bundle, error in cases:
        with pytest.raises(error):
            await driver.write(bundle, chunks, quiet)
        assert (await driver.slots())[1].state is SlotState.EMPTY
    with pytest.raises(DescriptionError):
        await bench.driver(device="other").write(bench.bundle("2.0"), chunks, quiet)
    assert bench.fpga.chip.read_bytes() == before


@pytest.mark.parametrize(
    "keys",
    [
        {"programmer": "dummy:emulate=VARIABLE_SIZE", "chip_file": Path("chip")},
        {"chip_file": None},
        {"select_command": ("true",), "selected_command": ("true",)},
        {"regions": ("golden",)},
        {"regions": ("other",)},
        {"block_bytes": 1 << 16},
        {"version_pattern": "("},
        {"version_pattern": "none"},
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(bench: Bench, keys: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        bench.driver(**keys)


def test_two_regions_need_a_way_to_tell_which(tmp_path: Path) -> None:
    bench = Bench(tmp_path, create_fpga(tmp_path / "f", factory=None, updates=("a", "b"), region_bytes=REGION_BYTES), ("a", "b"))
    with pytest.raises(ConfigurationError, match="select_command"):
        bench.driver(selected_command=())


async def test_a_chip_that_is_another_one_is_refused(bench: Bench) -> None:
    small = bench.folder / "small.bin"
    small.write_bytes(bytes(100))
    chunks = fpga_releases(bench.folder).release("3.0", b"x").chunks
    for chip in (small, bench.folder / "absent"):
        with pytest.raises(FieldrelayError):
            await bench.driver(chip_file=chip).write(bench.bundle("2.0"), chunks, quiet)
    assert small.read_bytes() == bytes(100)


async def test_a_trigger_that_fails_is_named(bench: Bench) -> None:
    with pytest.raises(HandlerError, match="trigger_command"):
        await bench.update(bench.driver(trigger_command=("false",)))


@pytest.mark.interop
async def test_flashrom_writes_the_update_region_only(bench: Bench) -> None:
    golden = bench.fpga.content(GOLDEN)
    await bench.update(bench.driver(**_programmer(dummy(bench.fpga))))
    assert bench.fpga.content(GOLDEN) == golden
    assert bench.fpga.content("update").rstrip(b"\xff") == bitstream("2.0").rstrip(b"\xff")


@pytest.mark.interop
@pytest.mark.parametrize(
    ("programmer", "keys", "reason"),
    [
        ("dummy:emulate=NOSUCHCHIP", {}, "NOSUCHCHIP"),
        ("", {"chip": "NOSUCHCHIP"}, "NOSUCHCHIP"),
        ("nosuchprogrammer", {}, "nosuchprogrammer"),
        ("", {"protected": True}, "write protection"),
        ("dummy:emulate=VARIABLE_SIZE,size=16384", {}, "16384"),
        ("dummy:emulate=W25Q128FV,hwwp=yes", {"protected": True}, "not write-protected"),
        ("", {"flashrom": "no-such-flashrom"}, "not installed"),
    ],
)
async def test_flashroms_refusals_are_told_before_anything_is_touched(
    bench: Bench, programmer: str, keys: dict[str, object], reason: str
) -> None:
    before = bench.fpga.chip.read_bytes()
    driver = bench.driver(**{**_programmer(programmer or dummy(bench.fpga)), **keys})
    machine = driver._machine
    with pytest.raises(FlashError, match=reason):
        await machine._flash.check(machine._layout)  # type: ignore[attr-defined] # of this driver
    bundle, chunks = bench.bundle("2.0"), fpga_releases(bench.folder).release("3.0", b"x").chunks
    with pytest.raises(FlashError):
        await driver.write(bundle, chunks, quiet)
    assert bench.fpga.chip.read_bytes() == before


@pytest.mark.interop
async def test_a_chip_that_protects_the_golden_region_is_taken(bench: Bench) -> None:
    programmer = "dummy:emulate=W25Q128FV,hwwp=yes,spi_status=0xa4"  # BP0 and TB: the lowest 256 KiB; SRP0: by the pin
    driver = bench.driver(**{**_programmer(programmer), "protected": True})
    machine = driver._machine
    await machine._flash.check(machine._layout)  # type: ignore[attr-defined] # of this driver


async def test_flash_that_does_not_keep_what_is_written_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = bench.driver()
    really = Fpga.content
    flash = driver._machine._flash  # type: ignore[attr-defined] # of this driver
    monkeypatch.setattr(type(flash), "_read", lambda _self, region: really(bench.fpga, region.name)[:-1] + b"\0")
    with pytest.raises(ReadBackError):
        await bench.update(driver)


def _programmer(programmer: str) -> dict[str, object]:
    return {"chip_file": None, "programmer": programmer, "flashrom": need_tool("flashrom"), "protected": False}
