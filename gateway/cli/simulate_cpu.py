"""`fieldrelay simulate cpu ...`: a secondary processor under remoteproc that exists only in a folder, for a dry run.

An agent with the configuration that `create` prints updates it as it would the real one, while `run` keeps it alive; the commands
here are the machine's power and the firmware's bad days.
"""

import asyncio
import json
from pathlib import Path

import click

from gateway.simulators.cpu import Behaviour, make_firmware
from gateway.simulators.cpu_tree import BOOT_FIRMWARE, keep_alive, make_tree
from update.errors import StateError

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_BEHAVIOUR = click.Choice([each.value for each in Behaviour])


@click.group()
def cpu() -> None:
    """A secondary processor, as Linux shows it in sysfs."""


@cpu.command("create")
@_FOLDER
@click.option("--release", "version", default="1.0", show_default=True, help="What it was delivered with.")
def create(folder: Path, *, version: str) -> None:
    """Make a processor in FOLDER, which must not exist, and print the driver's configuration for it."""
    if folder.exists():
        raise StateError(f"{folder} exists: name a folder that does not")
    folder.mkdir(parents=True)
    make_tree(folder, make_firmware(version))
    print(_configuration(folder.absolute()))


@cpu.command("firmware")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--release", "version", required=True, help="What it says of itself while it runs.")
@click.option("--behaviour", type=_BEHAVIOUR, default="good", show_default=True, help="What it does once it is started.")
def firmware(file: Path, *, version: str, behaviour: str) -> None:
    """Write firmware for these processors: what a bundle brings."""
    if file.exists():
        raise StateError(f"{file} exists: name a file that does not")
    file.write_bytes(make_firmware(version, Behaviour(behaviour)))


@cpu.command("run")
@_FOLDER
def run(folder: Path) -> None:
    """Start the machine of FOLDER and keep its sysfs tree alive until interrupted: carry out what is written into it."""
    _require(folder)
    asyncio.run(keep_alive(make_tree(folder)))


@cpu.command("power")
@_FOLDER
def power(folder: Path) -> None:
    """Switch the machine off and on, while `run` keeps it alive."""
    _require(folder)
    (folder / "power").touch()


@cpu.command("misbehave")
@_FOLDER
@click.argument("version", metavar="RELEASE")
@click.argument("behaviour", type=_BEHAVIOUR)
def misbehave(folder: Path, *, version: str, behaviour: str) -> None:
    """Have firmware RELEASE behave so from now on, whatever its file says."""
    _require(folder)
    with (folder / "behaviours").open("a") as file:
        file.write(f"{version} {behaviour}\n")


def _require(folder: Path) -> None:
    if not (folder / "firmware" / BOOT_FIRMWARE).is_file():
        raise StateError(f"{folder} holds no processor; make one with `fieldrelay simulate cpu create {folder}`")


def _configuration(folder: Path) -> str:
    text = json.dumps  # a JSON text is one of TOML, too
    lines = [
        "[driver]",
        'kind = "remoteproc"',
        "",
        "[driver.remoteproc]",
        f"root = {text(str(folder / 'sys'))}",
        f"firmware_folder = {text(str(folder / 'firmware'))}",
        f"boot_firmware = {text(BOOT_FIRMWARE)}",
        f"version_file = {text(str(folder / 'version'))}",
        "",
        "[bootloader]",
        'kind = "none"',
    ]
    return "\n".join(lines)
