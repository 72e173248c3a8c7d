"""The agent and an FPGA together: what is reported of a bitstream that does not load, and updates that power cuts interrupt."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.simulators.fpga import GOLDEN, GOLDEN_VERSION, Fpga, FpgaFaults, create_fpga
from gateway.simulators.fpga_tree import FpgaTree, make_tree
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers import fpga_flash, fpga_manager
from node_agent.drivers.driver import Surroundings
from node_agent.states import Outcome
from tests.builders.bundles import DEMO
from tests.contract.faults import Fault, Fuse
from tests.contract.fpga_devices import REGION_BYTES, alive, bitstream, flash_config, fpga_releases, manager_config
from tests.node_agent.doubles import Assigner, Supply, Well
from tests.node_agent.node import ORDER, Node
from tests.replay import Killed
from update.bundle.verified import VerifiedBundle
from update.durable import Disk


def _supply(folder: Path) -> Supply:
    bundle = fpga_releases(folder).release("2.0", bitstream("2.0")).bundle
    assert isinstance(bundle, VerifiedBundle)
    supply = Supply(folder)
    supply.bundle, supply.release = bundle, replace(supply.release, version="2.0", bundle=bundle.digest)
    return supply


def _surroundings(folder: Path, disk: Disk) -> Surroundings:
    return Surroundings(disk, folder / "state", DEMO, NoBootloader())


def _node(folder: Path, fpga: Fpga, disk: Disk | None = None, **keys: object) -> Node:
    driver = fpga_flash.create(flash_config(fpga, ("update",), **keys), _surroundings(folder, disk or Disk()))
    return Node(folder, driver, _supply(folder), Assigner([ORDER]))  # type: ignore[arg-type] # a real driver instead of the double


def _chip(folder: Path, factory: str | None = "1.0") -> Fpga:
    return create_fpga(folder / "fpga", factory=bitstream(factory) if factory else None, region_bytes=REGION_BYTES)


async def test_a_good_bitstream_is_confirmed(tmp_path: Path) -> None:
    fpga = _chip(tmp_path)
    node = _node(tmp_path, fpga)
    await node.run()
    assert [report.outcome for report in node.source.results] == [Outcome.CONFIRMED]
    assert fpga.load() == "2.0"


@pytest.mark.parametrize("factory", ["1.0", None])
async def test_one_that_does_not_load_is_taken_back_and_the_report_says_why(tmp_path: Path, factory: str | None) -> None:
    fpga = _chip(tmp_path, factory)
    FpgaFaults(refused=("2.0",)).keep(fpga.folder)
    node = _node(tmp_path, fpga)
    await node.run()
    (result,) = node.source.results
    assert (result.outcome, result.code) == (Outcome.ROLLED_BACK, "device.health")
    assert "fell back to its golden" in result.message
    assert fpga.version() == fpga.load() == (factory or GOLDEN_VERSION)


async def test_one_that_hangs_is_taken_back(tmp_path: Path) -> None:
    fpga = _chip(tmp_path)
    FpgaFaults(mute=("2.0",)).keep(fpga.folder)
    node = _node(tmp_path, fpga, start_timeout_s=0.3)
    await node.run()
    assert [(report.outcome, report.code) for report in node.source.results] == [(Outcome.ROLLED_BACK, "device.silent")]
    assert fpga.version() == "1.0"


async def test_one_that_is_not_well_is_taken_back(tmp_path: Path) -> None:
    fpga = _chip(tmp_path)
    node = _node(tmp_path, fpga)
    node.check = Well("the self-test failed")
    await node.run()
    assert [(report.outcome, report.code) for report in node.source.results] == [(Outcome.ROLLED_BACK, "device.health")]
    assert fpga.version() == fpga.load() == "1.0"


@pytest.mark.parametrize("power_cut", [False, True], ids=["agent", "both"])
async def test_an_agent_that_dies_at_any_write_carries_the_update_to_its_end(tmp_path: Path, power_cut: bool) -> None:
    """Every fourth operation of the disk and the chip; where the FPGA loses its power too, it may come up golden."""
    came_up: set[str] = set()
    for at in range(0, 300, 4):
        folder = tmp_path / str(at)
        folder.mkdir()
        fpga, fuse = _chip(folder), Fuse()
        golden, node = fpga.content(GOLDEN), _node(folder, fpga, Disk(fuse.disk))
        fuse.arm(at, Fault.DIES_BEFORE)
        try:
            await node.run()
            assert not fuse.burnt
            break
        except Killed:
            came_up |= {fpga.load()} if power_cut else set()
        await node.run()
        assert [report.outcome for report in node.source.results] == [Outcome.CONFIRMED]
        assert (fpga.version(), fpga.load(), fpga.content(GOLDEN)) == ("2.0", "2.0", golden)
    else:
        raise AssertionError("the update has more operations than were tried")
    assert came_up == ({"1.0", GOLDEN_VERSION, "2.0"} if power_cut else set())


async def test_an_fpga_that_linux_loads_is_confirmed_or_taken_back(tmp_path: Path) -> None:
    for version, faults, outcome in [
        ("2.0", FpgaFaults(), Outcome.CONFIRMED),
        ("1.0", FpgaFaults(refused=("2.0",)), Outcome.ROLLED_BACK),
    ]:
        folder = tmp_path / outcome
        folder.mkdir()
        tree: FpgaTree = make_tree(folder / "fpga", bitstream("1.0"))
        faults.keep(tree.folder)
        driver = fpga_manager.create(manager_config(tree), _surroundings(folder, Disk()))
        node = Node(folder, driver, _supply(folder), Assigner([ORDER]))  # type: ignore[arg-type] # as above
        with alive(tree):
            await node.run()
        assert [report.outcome for report in node.source.results] == [outcome]
        assert tree.version() == tree.power_cycle() == version
