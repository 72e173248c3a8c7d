"""What the simulated FPGAs do at a load, on good days and on bad ones."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulators.fpga import GOLDEN_VERSION, Fpga, FpgaFaults, create_fpga, make_bitstream, read_version
from gateway.simulators.fpga_tree import FpgaTree, make_tree
from update.errors import StateError


def test_it_loads_its_update_region_and_falls_back_where_that_is_torn(tmp_path: Path) -> None:
    fpga = create_fpga(tmp_path / "fpga", factory=make_bitstream("1.0"), region_bytes=4096)
    assert (fpga.load(), fpga.version()) == ("1.0", "1.0")
    fpga.tear("update", 200)
    assert (Fpga(fpga.folder).load(), fpga.version()) == (GOLDEN_VERSION, GOLDEN_VERSION)


def test_it_refuses_and_falls_silent_on_demand(tmp_path: Path) -> None:
    fpga = create_fpga(tmp_path / "fpga", factory=make_bitstream("1.0"), region_bytes=4096)
    FpgaFaults(refused=("1.0",)).keep(fpga.folder)
    assert fpga.load() == GOLDEN_VERSION
    FpgaFaults(mute=("1.0",)).keep(fpga.folder)
    assert (fpga.load(), fpga.version()) == ("1.0", "")
    FpgaFaults().keep(fpga.folder)
    assert (fpga.load(), fpga.version()) == ("1.0", "1.0")


def test_of_two_regions_it_loads_the_selected_one(tmp_path: Path) -> None:
    fpga = create_fpga(tmp_path / "fpga", factory=make_bitstream("1.0"), updates=("first", "second"), region_bytes=4096)
    fpga.select("second")
    assert fpga.load() == GOLDEN_VERSION
    fpga.select("first")
    assert fpga.load() == "1.0"
    for name in ("third", "golden"):
        with pytest.raises(StateError):
            fpga.select(name)
    assert fpga.selected() == "first"


def test_linux_loads_what_is_named_and_only_that(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "fpga", make_bitstream("1.0"))
    assert not tree.react()
    (tree.firmware_folder / "new.bin").write_bytes(make_bitstream("2.0"))
    (tree.firmware_folder / "broken.bin").write_bytes(make_bitstream("3.0")[:-1])
    for name, version, state in [
        ("new.bin\n", "2.0", "operating"),
        ("absent.bin\n", "", "firmware request error"),
        ("broken.bin\n", "", "write error"),
        ("../boot.bin\n", "", "firmware request error"),
    ]:
        (tree.attributes / "firmware").write_text(name)
        assert tree.react()
        assert (tree.version(), (tree.attributes / "state").read_text().strip()) == (version, state)
    before = tree.boot_id.read_text()
    assert tree.power_cycle() == "1.0"
    assert tree.boot_id.read_text() != before


def test_what_is_there_is_not_made_again_and_what_is_not_is_refused(tmp_path: Path) -> None:
    create_fpga(tmp_path / "flash", factory=None)
    make_tree(tmp_path / "tree", b"")
    with pytest.raises(StateError):
        create_fpga(tmp_path / "flash", factory=None)
    with pytest.raises(StateError):
        make_tree(tmp_path / "tree", b"")
    with pytest.raises(StateError):
        Fpga(tmp_path)
    with pytest.raises(StateError):
        create_fpga(tmp_path / "small", factory=bytes(5000), region_bytes=4096)
    with pytest.raises(StateError):
        make_bitstream("v" * 33)
    assert not FpgaTree(tmp_path).attributes.exists()


@given(version=st.text("abc019.-", min_size=1, max_size=32), body=st.binary(max_size=200), cut=st.integers(0, 100))
@settings(max_examples=100)
def test_a_bitstream_is_whole_or_none(version: str, body: bytes, cut: int) -> None:
    data = make_bitstream(version, body)
    assert read_version(data) == read_version(data + b"\xff" * 9) == version
    assert read_version(data[: max(0, len(data) - 1 - cut)]) is None


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_flash_holds_a_bitstream_or_none(data: bytes) -> None:
    assert read_version(data) is None or data.startswith(b"FRBITS1")
