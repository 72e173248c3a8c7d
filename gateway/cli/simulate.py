"""`fieldrelay simulate ...`: devices that exist only in a folder, for a dry run of a plant's configuration.

An agent with the configuration that `create` prints updates them as it would the real ones; the commands here are the device's
power, its registers, and its bad days.
"""

import asyncio
import json
from pathlib import Path

import click

from gateway.cli.simulate_cpu import cpu
from gateway.cli.simulate_mcu import mcu
from gateway.simulators.fpga import GOLDEN, GOLDEN_VERSION, Fpga, FpgaFaults, create_fpga, make_bitstream
from gateway.simulators.fpga_tree import FpgaTree, make_tree, serve_tree
from update.errors import StateError

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_REGIONS = {1: ("update",), 2: ("first", "second")}


@click.group()
def simulate() -> None:
    """Devices that exist only in a folder, and misbehave on demand."""


simulate.add_command(cpu)
simulate.add_command(mcu)


@simulate.group()
def fpga() -> None:
    """An FPGA behind a flash chip, or one that Linux loads."""


@fpga.command("create")
@_FOLDER
@click.option("--sysfs", is_flag=True, help="One that Linux loads (fpga_manager), instead of one behind a flash chip.")
@click.option("--release", "version", default="1.0", show_default=True, help="What it was delivered with; empty: nothing.")
@click.option("--regions", type=click.IntRange(1, 2), default=1, show_default=True, help="Update regions of the flash chip.")
def create(folder: Path, *, sysfs: bool, version: str, regions: int) -> None:
    """Make an FPGA in FOLDER, switch it on, and print the driver's configuration for it."""
    place = folder.absolute()
    if sysfs:
        make_tree(place, make_bitstream(version or GOLDEN_VERSION))
        print(_sysfs_configuration(place))
        return
    create_fpga(place, factory=make_bitstream(version) if version else None, updates=_REGIONS[regions])
    print(_flash_configuration(place, regions))


@fpga.command("bitstream")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--release", "version", required=True, help="What the FPGA says while it runs.")
@click.option("--size", "size_bytes", type=click.IntRange(0, 1 << 24), default=1000, show_default=True, help="Bytes of its body.")
def bitstream(file: Path, *, version: str, size_bytes: int) -> None:
    """Write a bitstream for these FPGAs: what a bundle brings."""
    if file.exists():
        raise StateError(f"{file} exists: name a file that does not")
    file.write_bytes(make_bitstream(version, bytes(number * 31 & 0xFF for number in range(size_bytes))))


@fpga.command("run")
@_FOLDER
def run(folder: Path) -> None:
    """Keep the sysfs tree in FOLDER alive until interrupted: do what is written into `firmware`."""
    asyncio.run(_kept_alive(_tree(folder)))


@fpga.command("load")
@_FOLDER
def load(folder: Path) -> None:
    """Switch it off and on, or pulse its trigger: it loads what it is to load."""
    print((_tree(folder).power_cycle() if _is_tree(folder) else Fpga(folder).load()) or "nothing runs")


@fpga.command("release")
@_FOLDER
def release(folder: Path) -> None:
    """Print what its version register says."""
    found = _tree(folder).version() if _is_tree(folder) else Fpga(folder).version()
    if not found:
        raise StateError(f"the FPGA in {folder} does not answer")
    print(found)


@fpga.command("select")
@_FOLDER
@click.argument("region")
def select(folder: Path, region: str) -> None:
    """Have its next load take REGION."""
    Fpga(folder).select(region)


@fpga.command("selected")
@_FOLDER
def selected(folder: Path) -> None:
    """Print the region that its next load takes."""
    print(Fpga(folder).selected())


@fpga.command("cut")
@_FOLDER
@click.option("--region", required=True, help="The region that was being written.")
@click.option("--after", "after_bytes", type=click.IntRange(min=0), default=100, show_default=True, help="Bytes written by then.")
def cut(folder: Path, *, region: str, after_bytes: int) -> None:
    """Leave a region as a power cut in the middle of a write does, and switch the power on again."""
    device = Fpga(folder)
    if region not in device.regions() or region == GOLDEN:
        raise StateError(f"no update region is called {region[:80]!r}; there are {', '.join(device.regions())}")
    device.tear(region, after_bytes)
    print(device.load())


@fpga.command("misbehave")
@_FOLDER
@click.option("--refuse", multiple=True, metavar="RELEASE", help="A release that does not load; the golden one comes up.")
@click.option("--mute", multiple=True, metavar="RELEASE", help="A release that loads, and then tells nothing.")
def misbehave(folder: Path, *, refuse: tuple[str, ...], mute: tuple[str, ...]) -> None:
    """From its next load on, misbehave so; without options, behave."""
    if not _is_tree(folder):
        Fpga(folder)
    FpgaFaults(refuse, mute).keep(folder)


def _is_tree(folder: Path) -> bool:
    return FpgaTree(folder).attributes.is_dir()


def _tree(folder: Path) -> FpgaTree:
    if not _is_tree(folder):
        raise StateError(f"{folder} holds no sysfs tree; make one with `fieldrelay simulate fpga create --sysfs {folder}`")
    return FpgaTree(folder)


async def _kept_alive(tree: FpgaTree) -> None:
    async with serve_tree(tree):
        await asyncio.Event().wait()


def _flash_configuration(folder: Path, regions: int) -> str:
    text = json.dumps  # a JSON text or list of texts is one of TOML, too
    call = ["fieldrelay", "simulate", "fpga"]
    lines = [
        "[driver]",
        'kind = "fpga_flash"',
        "",
        "[driver.fpga_flash]",
        f"chip_file = {text(str(folder / 'chip.bin'))}",
        f"layout = {text(str(folder / 'layout.txt'))}",
        f"regions = {text(_REGIONS[regions])}",
        f"golden_versions = {text([GOLDEN_VERSION])}",
        f"version_command = {text([*call, 'release', str(folder)])}",
        f"trigger_command = {text([*call, 'load', str(folder)])}",
    ]
    if regions > 1:
        lines.append(f"select_command = {text([*call, 'select', str(folder)])}")
        lines.append(f"selected_command = {text([*call, 'selected', str(folder)])}")
    return "\n".join([*lines, "", "[bootloader]", 'kind = "none"'])


def _sysfs_configuration(folder: Path) -> str:
    text = json.dumps
    lines = [
        "[driver]",
        'kind = "fpga_manager"',
        "",
        "[driver.fpga_manager]",
        f"root = {text(str(folder / 'sys'))}",
        f"firmware_folder = {text(str(folder / 'firmware'))}",
        f"boot_file = {text(str(folder / 'boot.bin'))}",
        f"boot_id = {text(str(folder / 'boot_id'))}",
        f"version_command = {text(['fieldrelay', 'simulate', 'fpga', 'release', str(folder)])}",
        "",
        "[bootloader]",
        'kind = "none"',
    ]
    return "\n".join(lines)
