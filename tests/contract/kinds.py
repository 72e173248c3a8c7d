"""Every kind of device that the contract suite of drivers runs: its devices, and the releases that they take.

kind = KINDS["rauc"]
releases = kind.supply(folder)
with ExitStack() as stack:
    device = kind.maker(stack, releases)(folder)
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from node_agent.drivers.driver import Restart
from tests.contract.command_devices import command_device, command_releases
from tests.contract.cpu_devices import cpu_device, cpu_releases
from tests.contract.devices import DeviceMaker, Release, linux_device, linux_uboot_device, make_release, simulated_device
from tests.contract.fpga_devices import flash_device, fpga_releases, manager_device
from tests.contract.mcu_devices import McuReleases, mcu_device
from tests.contract.rauc_devices import RaucReleases, rauc_device
from tests.contract.swupdate_devices import SwupdateReleases, swupdate_device
from tests.contract.web_devices import web_device_maker

Bootenv = Sequence[Mapping[str, object]]
"""Boot variables of a bundle."""


class Releases(Protocol):
    """Releases by version: the same one for the same number, or a new one that brings boot variables."""

    def __call__(self, version: int, /, bootenv: Bootenv = ()) -> Release: ...


@dataclass(slots=True)
class SwuReleases:
    """Bundles for drivers that write slots themselves."""

    folder: Path
    made: dict[int, Release] = field(default_factory=dict)

    def __call__(self, version: int, /, bootenv: Bootenv = ()) -> Release:
        if bootenv:  # beside the others: what was made before is still used
            folder = self.folder / f"with-variables-{version}"
            folder.mkdir(exist_ok=True)
            return make_release(folder, version, bootenv=bootenv)
        if version not in self.made:
            self.made[version] = make_release(self.folder, version)
        return self.made[version]


@dataclass(frozen=True, slots=True)
class Kind:
    """`variables`: bundles bring boot variables, which `board.environment` shows. `marks`: what a real tool needs.

    `starts`: how often a trial starts before the device takes it back by itself (0: it never does).
    `restart`: what the driver's word answers.
    `reaches`: the attributes of the driver through which it reaches the device; each of their coroutine functions gets faults.
    `costly`: an update takes seconds, so that fewer of its steps get faults.
    """

    supply: Callable[[Path], Releases]
    maker: Callable[[ExitStack, Releases], DeviceMaker]
    variables: bool = True
    starts: int = 2
    restart: Restart = Restart.BY_EXIT
    marks: tuple[pytest.MarkDecorator, ...] = ()
    reaches: tuple[str, ...] = ()
    costly: bool = False


def _rauc(stack: ExitStack, releases: Releases) -> DeviceMaker:
    assert isinstance(releases, RaucReleases)
    return rauc_device(stack, releases)


def _swupdate(stack: ExitStack, releases: Releases) -> DeviceMaker:
    assert isinstance(releases, SwupdateReleases)
    return swupdate_device(stack, releases)


def _fpga_flash(maker: DeviceMaker, *, marks: tuple[pytest.MarkDecorator, ...] = ()) -> Kind:
    return Kind(
        fpga_releases,
        lambda _stack, _releases: maker,
        variables=False,
        starts=0,
        restart=Restart.DONE,
        marks=marks,
        reaches=("_machine._flash", "_machine._commands"),
        costly=bool(marks),
    )


_LOOP = pytest.mark.xdist_group("loop-devices")

KINDS: Mapping[str, Kind] = {
    "command-one-slot": Kind(
        command_releases,
        lambda stack, _releases: command_device(stack),
        variables=False,
        starts=0,
        restart=Restart.DONE,
        reaches=("_machine",),
        costly=True,
    ),
    "command-two-slots": Kind(
        command_releases,
        lambda stack, _releases: command_device(stack, slots=2),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_machine",),
        costly=True,
    ),
    "remoteproc": Kind(
        cpu_releases,
        lambda stack, _releases: cpu_device(stack),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_machine",),
    ),
    "remoteproc-tree": Kind(
        cpu_releases,
        lambda stack, _releases: cpu_device(stack, tree=True),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_machine",),
        costly=True,
    ),
    "simulated": Kind(SwuReleases, lambda _stack, _releases: simulated_device),
    "linux": Kind(SwuReleases, lambda _stack, _releases: linux_device),
    "linux-uboot": Kind(SwuReleases, lambda _stack, _releases: linux_uboot_device, marks=(pytest.mark.interop,)),
    "swupdate": Kind(SwupdateReleases, _swupdate, marks=(pytest.mark.interop,)),
    "rauc": Kind(RaucReleases, _rauc, variables=False, marks=(pytest.mark.interop, _LOOP), costly=True),
    "swupdate-web": Kind(
        SwuReleases, lambda stack, releases: web_device_maker(stack, releases(1)), variables=False, restart=Restart.DONE
    ),
    "mcuboot-udp": Kind(
        McuReleases,
        lambda stack, _releases: mcu_device(stack),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_line",),
    ),
    "mcuboot-pty": Kind(
        McuReleases,
        lambda stack, _releases: mcu_device(stack, pty=True),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_line",),
    ),
    "fpga-flash": _fpga_flash(flash_device()),
    "fpga-flash-two-regions": _fpga_flash(flash_device(updates=("first", "second"))),
    "fpga-flashrom": _fpga_flash(flash_device(flashrom=True), marks=(pytest.mark.interop,)),
    "fpga-manager": Kind(
        fpga_releases,
        lambda stack, _releases: manager_device(stack),
        variables=False,
        starts=1,
        restart=Restart.DONE,
        reaches=("_machine._manager",),
    ),
}


def parameters(*, variables: bool = False) -> list[object]:
    """Names of kinds as parameters of a test; `variables`: only those whose bundles bring some."""
    return [pytest.param(name, marks=kind.marks) for name, kind in KINDS.items() if kind.variables or not variables]
