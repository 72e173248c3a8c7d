"""The boot script in a real U-Boot (QEMU, arm64), with the environment written by the real fw_setenv.

U-Boot's own `saveenv` does not work on this virtual board, so `lab.cmd` keeps the two redundant copies in raw blocks of
the disk, in the very format of the tools. It is put before the product's script, which runs unchanged.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.bootloaders import uboot
from node_agent.bootloaders.boot_script import DEFAULTS, next_boot
from node_agent.bootloaders.bootloader import Bootloader
from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.uboot import UbootConfig, UbootEnvironment
from tests.contract.boards import ENVIRONMENT_BYTES, make_environment
from tests.peers import need, need_tool
from update.durable import Disk

pytestmark = [pytest.mark.system, pytest.mark.interop]

SCRIPT = Path(__file__).parents[2] / "configs" / "uboot" / "boot.cmd"
FIRMWARE = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
DISK_BYTES = 34 << 20
PARTITION_BYTES = 33 << 20
FLASH_BYTES = 64 << 20
COPIES = (0x4000, 0x8000)
SECTOR_BYTES = 512
FIRST_SECTOR = 2048
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Board:
    """A virtual board with its disk; `bootloader` is what an agent on it would use."""

    folder: Path
    bootloader: Bootloader
    environment: UbootEnvironment
    disk: Path

    def power_on(self) -> list[str]:
        """Run until it switches itself off; what the script said. The last slot's kernel has left its command line."""
        command = [need_tool("qemu-system-aarch64"), "-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-accel", "tcg"]
        command += ["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none", "-bios", str(FIRMWARE)]
        command += ["-drive", f"if=pflash,index=1,format=raw,file={self.folder / 'flash.img'}"]
        command += ["-drive", f"if=none,id=d,file={self.disk},format=raw", "-device", "virtio-blk-device,drive=d"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False)
        said = [line.strip().removeprefix("LAB ") for line in done.stdout.splitlines() if line.startswith("LAB ")]
        assert said, done.stdout[-2000:] + done.stderr
        (self.folder / "cmdline").write_text(said[-1].partition("args=")[2])
        return [line.partition(" args=")[0] for line in said]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    need(present=FIRMWARE.exists(), reason=f"U-Boot for QEMU is not installed ({FIRMWARE}, Debian package u-boot-qemu)")
    disk = tmp_path / "disk.img"
    _make_disk(tmp_path, disk)
    with (tmp_path / "flash.img").open("wb") as flash:
        flash.truncate(FLASH_BYTES)
    lines = [f"{disk} {offset:#x} {ENVIRONMENT_BYTES:#x}\n" for offset in COPIES]
    (tmp_path / "fw_env.config").write_text("".join(lines))
    config = UbootConfig(
        tmp_path / "fw_env.config", CommandLine(tmp_path / "cmdline"), need_tool("fw_printenv"), need_tool("fw_setenv")
    )
    board = Board(tmp_path, uboot.create(config, Disk()), UbootEnvironment(config), disk)
    _seed(board, DEFAULTS)
    return board


def _make_disk(folder: Path, disk: Path) -> None:
    """One FAT partition with the boot script; the environment lies before it."""
    script, partition = folder / "boot.cmd", folder / "partition.img"
    script.write_text(Path(__file__).with_name("lab.cmd").read_text() + SCRIPT.read_text())
    for image, size in ((disk, DISK_BYTES), (partition, PARTITION_BYTES)):
        with image.open("wb") as file:
            file.truncate(size)
    table = f"label: dos\nstart={FIRST_SECTOR}, size={PARTITION_BYTES // SECTOR_BYTES}, type=c, bootable\n"
    _run("sfdisk", "-q", disk, given=table)
    _run("mkfs.vfat", "-F", "32", partition)
    _run("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", script, folder / "boot.scr")
    _run("mcopy", "-i", partition, folder / "boot.scr", "::boot.scr")
    with disk.open("r+b") as file:
        file.seek(FIRST_SECTOR * SECTOR_BYTES)
        file.write(partition.read_bytes())


def _run(tool: str, *arguments: str | Path, given: str = "") -> None:
    subprocess.run([need_tool(tool), *arguments], input=given, check=True, capture_output=True, text=True, timeout=60)


def _seed(board: Board, variables: Mapping[str, str]) -> None:
    """Both copies as a factory would write them."""
    listing, media = board.folder / "factory.txt", board.folder / "environment.img"
    listing.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    make_environment(listing, media)
    with board.disk.open("r+b") as file:
        file.seek(COPIES[0])
        file.write(media.read_bytes())


def test_a_slot_that_crashes_is_left_after_its_limit_and_the_agent_learns_of_it(board: Board) -> None:
    assert board.power_on() == ["slot=a count=0 up=0 ustate=0"]
    board.bootloader.try_once("b", {"lab_b": "crash", "release": "2.0"})
    assert board.power_on() == [
        "slot=b count=1 up=1 ustate=2",
        "crash",
        "slot=b count=2 up=1 ustate=2",
        "crash",
        "slot=a count=0 up=0 ustate=3",
    ]
    loader = board.bootloader
    assert (loader.booted(), loader.primary(), loader.trial(), loader.failed()) == ("a", "a", None, "b")
    assert board.environment.read()["release"] == "2.0"
    assert board.power_on() == ["slot=a count=0 up=0 ustate=3"]


def test_a_slot_that_is_confirmed_stays(board: Board) -> None:
    board.power_on()
    board.bootloader.try_once("b", {})
    assert board.power_on() == ["slot=b count=1 up=1 ustate=2"]
    assert (board.bootloader.booted(), board.bootloader.trial()) == ("b", "b")
    board.bootloader.mark_good("b")
    assert board.power_on() == ["slot=b count=0 up=0 ustate=0"]
    board.bootloader.mark_bad("b")
    assert board.power_on() == ["slot=a count=0 up=0 ustate=3"]


def test_a_torn_write_of_the_environment_is_survived_by_both_sides(board: Board) -> None:
    board.power_on()
    board.bootloader.try_once("b", {})
    with board.disk.open("r+b") as file:
        flags = {}
        for offset in COPIES:
            file.seek(offset + 4)
            flags[offset] = file.read(1)[0]
        file.seek(max(COPIES, key=lambda offset: flags[offset]) + 1000)
        file.write(b"torn")
    assert board.bootloader.primary() == "a"
    assert board.power_on() == ["slot=a count=0 up=0 ustate=0"]


def test_a_trial_that_cannot_be_counted_is_not_started(board: Board) -> None:
    board.power_on()
    board.bootloader.try_once("b", {"lab_save": "broken"})
    assert [line.partition(" ")[0] for line in board.power_on()] == ["slot=a"]


@pytest.mark.parametrize(
    "variables",
    [
        {"bootslot": "c", "bootcount": "x", "bootlimit": "", "upgrade_available": "yes"},
        {"bootslot": "b", "upgrade_available": "1", "bootcount": "a", "bootlimit": "10"},
        {"bootslot": "b", "upgrade_available": "1", "bootcount": "8", "bootlimit": "9", "ustate": "2"},
        {"bootslot": "b", "upgrade_available": "1", "bootcount": "9", "bootlimit": "9", "ustate": "2"},
    ],
)
def test_one_start_is_what_the_product_says_it_is(board: Board, variables: Mapping[str, str]) -> None:
    seeded = {"board": "demo", **variables}
    _seed(board, seeded)
    expected = next_boot(seeded)
    assert [line.partition(" ")[0] for line in board.power_on()] == [f"slot={expected.slot}"]
    assert board.bootloader.booted() == expected.slot
    found = board.environment.read()
    assert {name: found.get(name, "") for name in (*DEFAULTS, "board")} == {
        name: expected.environment.get(name, "") for name in (*DEFAULTS, "board")
    }
