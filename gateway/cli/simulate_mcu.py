"""`fieldrelay simulate mcu ...`: a microcontroller with MCUboot and SMP that exists only in a folder, for a dry run.

An agent with the configuration that `create` prints updates it as it would the real one, while `run` plays it on UDP or on a pty;
the other commands are the device's power and its bad days.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from random import Random

import click

from gateway.simulators.mcu import Mcu, McuFaults
from gateway.simulators.mcu_folder import McuFolder, kept_alive, make_mcu, misbehave, open_mcu, read_flash
from gateway.simulators.mcu_image import make_mcu_image
from gateway.simulators.mcu_server import serve_pty, serve_udp
from update.errors import StateError

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_PORT = click.option("--port", type=click.IntRange(0, 65535), default=1337, show_default=True, help="UDP port on this machine.")
_PTY = click.option("--pty", is_flag=True, help="Behind a serial port (FOLDER/line) instead of UDP.")


@click.group()
def mcu() -> None:
    """A microcontroller with MCUboot that speaks SMP."""


@mcu.command("create")
@_FOLDER
@click.option("--release", "version", default="1.0.0", show_default=True, help="What it was delivered with.")
@_PORT
@_PTY
def create(folder: Path, *, version: str, port: int, pty: bool) -> None:
    """Make a microcontroller in FOLDER, which must not exist, and print the driver's configuration for it."""
    if folder.exists():
        raise StateError(f"{folder} exists: name a folder that does not")
    make_mcu(folder, _image(version, 20_000))
    print(_configuration(folder.absolute(), port=None if pty else port))


@mcu.command("image")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--release", "version", required=True, help="What it says of itself: 1.2.3, or 1.2.3+4.")
@click.option(
    "--size", "size_bytes", type=click.IntRange(0, 100_000), default=20_000, show_default=True, help="Bytes of its body."
)
def image(file: Path, *, version: str, size_bytes: int) -> None:
    """Write an image for these microcontrollers: what a bundle brings. Those for real ones are made by imgtool."""
    if file.exists():
        raise StateError(f"{file} exists: name a file that does not")
    file.write_bytes(_image(version, size_bytes))


@mcu.command("run")
@_FOLDER
@_PORT
@_PTY
def run(folder: Path, *, port: int, pty: bool) -> None:
    """Give the device in FOLDER power and play it until interrupted."""
    asyncio.run(_played(open_mcu(folder), port=None if pty else port))


@mcu.command("power")
@_FOLDER
def power(folder: Path) -> None:
    """Switch the device off and on, while `run` plays it."""
    read_flash(folder)
    (folder / "power").touch()


@mcu.command("release")
@_FOLDER
def release(folder: Path) -> None:
    """Print what runs, and whether it is on trial; read from its flash, also while it is mute."""
    flash = read_flash(folder)
    print(Mcu([*flash.places]).version() + (" (on trial)" if flash.swapped and not flash.image_ok else ""))


@mcu.command("misbehave")
@_FOLDER
@click.option("--hang", multiple=True, metavar="RELEASE", help="An image that starts and never answers, such as 2.0.0.")
@click.option("--drop", type=click.FloatRange(0, 1), default=0.0, help="So many of its requests never arrive: 0.1 is each tenth.")
@click.option("--slow", type=click.FloatRange(0, 60), default=0.0, help="Seconds until each answer.")
@click.option("--cut-swap", type=click.IntRange(0, 1000), default=0, help="So many swaps lose the power midway; then `power`.")
@click.option("--mute", is_flag=True, help="Answer nothing.")
def misbehaving(folder: Path, *, hang: tuple[str, ...], drop: float, slow: float, cut_swap: int, mute: bool) -> None:
    """From now on, misbehave so; without options, behave."""
    read_flash(folder)
    faults = McuFaults(silent_versions=hang, silent=mute, lost_share=drop, answer_after_s=slow, swap_cuts=cut_swap)
    misbehave(folder, faults)


async def _played(device: McuFolder, *, port: int | None) -> None:
    async with kept_alive(device):
        if port is not None:
            async with serve_udp(device.mcu, port=port) as bound:
                click.echo(f"udp port {bound}")
                await asyncio.Event().wait()
        link = device.folder / "line"
        async with serve_pty(device.mcu) as path:
            with suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(path)
            click.echo(f"serial port {link}")
            await asyncio.Event().wait()


def _image(version: str, size_bytes: int) -> bytes:
    return make_mcu_image(version, Random(version).randbytes(size_bytes))  # noqa: S311 - the same release, the same bytes


def _configuration(folder: Path, *, port: int | None) -> str:
    text = json.dumps  # a JSON text or list of texts is one of TOML, too
    place = [f"port = {text(str(folder / 'line'))}"] if port is None else ['host = "127.0.0.1"', f"udp_port = {port}"]
    lines = [
        "[driver]",
        'kind = "mcuboot"',
        "",
        "[driver.mcuboot]",
        *place,
        f"power_cycle = {text(['fieldrelay', 'simulate', 'mcu', 'power', str(folder)])}",
        "",
        "[bootloader]",
        'kind = "none"',
    ]
    return "\n".join(lines)
