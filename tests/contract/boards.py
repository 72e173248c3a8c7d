"""Boards for the contract suites: a bootloader, its environment, and a power switch."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node_agent.bootloaders import simulated, uboot
from node_agent.bootloaders.boot_script import DEFAULTS
from node_agent.bootloaders.bootloader import Bootloader
from node_agent.bootloaders.command_line import CommandLine
from node_agent.bootloaders.scripted import Environment, start
from node_agent.bootloaders.simulated import SimulatedBootloaderConfig, SimulatedEnvironment
from node_agent.bootloaders.uboot import UbootConfig, UbootEnvironment
from tests.peers import need_tool
from update.durable import Disk

ENVIRONMENT_BYTES = 0x4000
FACTORY: Mapping[str, str] = {**DEFAULTS, "board": "demo"}


@dataclass(frozen=True, slots=True)
class Board:
    """One simulated board; `media` is the file that holds the environment."""

    bootloader: Bootloader
    environment: Environment
    command_line: Path
    media: Path

    def decides(self) -> bytes:
        """Whatever decides what the next start brings."""
        return self.media.read_bytes()

    def power_on(self) -> str:
        """Do what the boot script does, start that slot's kernel; returns the slot."""
        slot = start(self.environment)
        self.command_line.write_text(f"root=/dev/vda console=ttyS0 fieldrelay.slot={slot} quiet\n")
        return slot


class BoardMaker(Protocol):
    def __call__(self, folder: Path, variables: Mapping[str, str] = FACTORY, disk: Disk | None = None) -> Board: ...


def simulated_board(folder: Path, variables: Mapping[str, str] = FACTORY, disk: Disk | None = None) -> Board:
    disk = disk or Disk()
    config = SimulatedBootloaderConfig(folder / "environment", CommandLine(folder / "cmdline"))
    environment = SimulatedEnvironment(config.environment, disk)
    environment.seed(variables)
    return Board(simulated.create(config, disk), environment, config.command_line.path, config.environment)


def uboot_board(folder: Path, variables: Mapping[str, str] = FACTORY, disk: Disk | None = None) -> Board:
    media, listing = folder / "environment.img", folder / "factory.txt"
    listing.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    make_environment(listing, media)
    config = UbootConfig(
        folder / "fw_env.config",
        CommandLine(folder / "cmdline"),
        need_tool("fw_printenv"),
        need_tool("fw_setenv"),
    )
    config.environment.write_text(f"{media} 0x0 {ENVIRONMENT_BYTES:#x}\n{media} {ENVIRONMENT_BYTES:#x} {ENVIRONMENT_BYTES:#x}\n")
    environment = UbootEnvironment(config)
    return Board(uboot.create(config, disk or Disk()), environment, config.command_line.path, media)


def make_environment(listing: Path, media: Path) -> None:
    """Two redundant copies of the variables in `listing`."""
    tool = need_tool("mkenvimage")
    subprocess.run([tool, "-r", "-s", str(ENVIRONMENT_BYTES), "-o", str(media), str(listing)], check=True, timeout=30)
    media.write_bytes(media.read_bytes() * 2)


BOARDS: Mapping[str, BoardMaker] = {"simulated": simulated_board, "uboot": uboot_board}
