"""The demo's nodes: boards as they would leave the factory, with one version in slot a and nothing in slot b.

The bootloader is U-Boot's environment in two redundant copies, through the real tools, where `fw_setenv`, `fw_printenv` and
`mkenvimage` are installed; else the simulated one.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.demo.images import DemoImage
from gateway.demo.release import BOARD, REPOSITORY, REVISION, SLOTS, Release, device_of
from gateway.simulators.board import Board
from node_agent.bootloaders.boot_script import DEFAULTS
from node_agent.bootloaders.scripted import Environment
from node_agent.bootloaders.simulated import SimulatedEnvironment
from node_agent.bootloaders.uboot import UbootConfig, UbootEnvironment
from node_agent.drivers.driver import SlotState
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from update.chunks.zchunk import parse_header
from update.digest import digest_file
from update.durable import Disk
from update.errors import StateError
from update.publish.images import zck_header

PART = "rootfs"
_ENVIRONMENT_BYTES = 0x4000
_TOOLS = ("fw_setenv", "fw_printenv", "mkenvimage")
_TOOL_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True, slots=True)
class Plan:
    """One node: its first version, and the version on which it will not be well (empty: always well)."""

    id: str
    version: str
    fails_on: str = ""


@dataclass(frozen=True, slots=True)
class Factory:
    """What every node is made from."""

    work: Path
    disk: Disk
    images: Mapping[str, DemoImage]  # by version
    release: Release
    site_ca: Path
    interface: str
    bootloader: str
    hardware: str = f"{BOARD}:{REVISION}"

    def make(self, plan: Plan, token: str) -> Board:
        """A board's folder with slots, environment, records and configuration; powered off."""
        folder = self.work / "nodes" / plan.id
        self.disk.make_folder(folder)
        image = self.images[plan.version]
        shutil.copyfile(image.path, slot_file(folder, "a"))
        with slot_file(folder, "b").open("wb") as file:
            file.truncate(image.size)
        self._record(folder, plan.version, image)
        environment = self._environment(folder)
        (folder / "token").write_text(token)
        (folder / "node.toml").write_text(self._configuration(plan))
        return Board(
            plan.id,
            environment=environment,
            command_line=folder / "cmdline",
            agent=[str(Path(sys.executable).with_name("update")), "agent", "--config", str(folder / "node.toml")],
            variables={"PATH": _TOOL_PATH, "TMPDIR": str(folder)},
            log=folder / "agent.log",
        )

    def _record(self, folder: Path, version: str, image: DemoImage) -> None:
        """What a factory knows about slot a: what it flashed there, and the chunk index of it."""
        records = SlotRecords(self.disk, folder / "state" / "slots")
        built = self.release.built[version]
        header = parse_header(zck_header(built.deltas[0].file))
        parts = {device_of("a"): PartRecord(size=image.size, digest=built.deltas[0].header.sha256)}
        records.write("a", SlotRecord(state=SlotState.CONFIRMED, version=version, bundle=built.sha256, parts=parts))
        records.keep_header("a", PART, header)

    def _environment(self, folder: Path) -> Environment:
        if self.bootloader == "simulated":
            simulated = SimulatedEnvironment(folder / "environment", self.disk)
            simulated.seed()
            return simulated
        copies, config = folder / "environment", folder / "fw_env.config"
        defaults = "".join(f"{name}={value}\n" for name, value in DEFAULTS.items())
        one = folder / "environment.one"
        _run(["mkenvimage", "-r", "-s", hex(_ENVIRONMENT_BYTES), "-o", str(one), "-"], defaults)
        copies.write_bytes(one.read_bytes() * 2)
        one.unlink()
        size = hex(_ENVIRONMENT_BYTES)
        config.write_text(f"{copies} 0x0 {size}\n{copies} {size} {size}\n")
        return UbootEnvironment(UbootConfig(environment=config, print_tool=_tool("fw_printenv"), set_tool=_tool("fw_setenv")))

    def _configuration(self, plan: Plan) -> str:
        slots = ", ".join(
            f'{{ name = "{slot}", selection = "{key}", '
            f'parts = [{{ name = "{PART}", device = "{device_of(slot)}", path = "slot-{slot}.img" }}] }}'
            for slot, key in SLOTS.items()
        )
        check = f'test "$FIELDRELAY_VERSION" != "{plan.fails_on}"' if plan.fails_on else "true"
        return (
            f'format_version = 1\n[node]\nid = "{plan.id}"\nhardware = "{self.hardware}"\nstate = "state"\n'
            f'[gateway]\ninterfaces = ["{self.interface}"]\nsite_ca = "{self.site_ca}"\ntoken = "token"\n'
            f'[[repository]]\nname = "{REPOSITORY}"\nroot = "{self.release.root}"\ncms_roots = ["{self.release.anchors}"]\n'
            f'[driver]\nkind = "linux"\n[driver.linux]\nslots = [{slots}]\n'
            f'[bootloader]\nkind = "{self.bootloader}"\n{self._bootloader_options()}'
            "[health]\ndeadline_s = 5\ninterval_s = 0.2\npasses = 2\ngateway = true\n"
            f"[[check]]\nkind = \"command\"\ncommand = ['sh', '-c', '{check}']\n"
            '[poll]\nminimum_s = 1\nmaximum_s = 2\nretry_s = 1\n[log]\nformat = "text"\n'
        )

    def _bootloader_options(self) -> str:
        line = 'command_line = { path = "cmdline" }\n'
        if self.bootloader == "simulated":
            return f'[bootloader.simulated]\nenvironment = "environment"\n{line}'
        tools = f'print_tool = "{_tool("fw_printenv")}"\nset_tool = "{_tool("fw_setenv")}"\n'
        return f'[bootloader.uboot]\nenvironment = "fw_env.config"\n{tools}{line}'


def slot_file(folder: Path, slot: str) -> Path:
    """The file that stands for a slot's block device."""
    return folder / f"slot-{slot}.img"


def slot_digest(folder: Path, slot: str) -> str:
    """SHA-256 of what is in a slot."""
    return digest_file(slot_file(folder, slot))[0]


def bootloader_here() -> str:
    """`uboot` where its real tools are installed."""
    return "uboot" if all(shutil.which(tool, path=_TOOL_PATH) for tool in _TOOLS) else "simulated"


def _tool(name: str) -> str:
    found = shutil.which(name, path=_TOOL_PATH)
    if found is None:
        raise StateError(f"{name} is not installed: install u-boot-tools and libubootenv-tool, or use the simulated bootloader")
    return found


def _run(command: list[str], text: str) -> None:
    done = subprocess.run([_tool(command[0]), *command[1:]], input=text.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise StateError(f"{command[0]} failed with {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
