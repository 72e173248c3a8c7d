"""A device with the real swupdate daemon for the contract suite of drivers; bootloader and its starts are those of every board.

swupdate writes to the devices that a description names: bundles name links, which lead to the slots of the device made last.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.drivers.driver import Surroundings
from node_agent.drivers.installers.swupdate import SwupdateConfig, SwupdateDriver
from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.builders.keys import make_pki
from tests.contract.boards import simulated_board
from tests.contract.devices import CAPACITY, Device, DeviceMaker, FileChunks, Release, make_kernel, make_root, slot_path
from tests.interop.servers.running import running
from tests.peers import need_tool
from update.durable import Disk

SELECTIONS: Mapping[str, str] = {"a": "stable,copy1", "b": "stable,copy2"}
_PARTS = ("kernel", "root")


@dataclass(slots=True)
class SwupdateReleases:
    """Bundles of one folder by version, made once, and verified; they write to the links in it."""

    folder: Path
    made: dict[int, Release] = field(default_factory=dict)

    def __call__(self, version: int, /, bootenv: Sequence[Mapping[str, object]] = ()) -> Release:
        if bootenv:
            return self._make(version, bootenv)
        if version not in self.made:
            self.made[version] = self._make(version, ())
        return self.made[version]

    def link(self, part: str, slot: str) -> Path:
        """The device that bundles know."""
        return self.folder / f"{part}_{slot}"

    def _make(self, version: int, bootenv: Sequence[Mapping[str, object]]) -> Release:
        content = {"kernel.img": make_kernel(version), "root.img": make_root(version)}
        more = {"bootenv": list(bootenv)} if bootenv else {}
        modes = {
            selection.partition(",")[2]: {
                "images": [
                    image(f"{part}.img", content[f"{part}.img"], device=str(self.link(part, slot)), type="raw") for part in _PARTS
                ],
                **more,
            }
            for slot, selection in SELECTIONS.items()
        }
        name = f"release-{version}-{len(bootenv)}.swu"
        file = signed(self.folder, describe(version=f"{version}.0", stable=modes), content, name=name)
        return Release(verified(file), FileChunks({}), content["root.img"], content["kernel.img"])


@dataclass(slots=True)
class SwupdateDaemon:
    """One daemon: its sockets and temporary copies are in `folder`, a short path."""

    folder: Path
    options: Sequence[str] = ("-B", "none")

    @contextmanager
    def serving(self) -> Iterator[None]:
        pki = self.folder / "pki"
        anchors = pki / "anchors.pem" if pki.exists() else make_pki().write(pki).anchors
        command = [*_apart(), "env", f"TMPDIR={self.folder}", need_tool("swupdate"), "-v", *self.options, "-k", str(anchors)]
        command += ["--cert-purpose", "codeSigning", "-H", str(DEMO)]
        for selection in SELECTIONS.values():
            command += ["-q", selection]
        log = self.folder / "d"
        log.mkdir(exist_ok=True)
        for socket in ("sockinstctrl", "swupdateprog"):
            (self.folder / socket).unlink(missing_ok=True)  # a daemon that was killed leaves them
        with running(command, log, lambda _said: (self.folder / "swupdateprog").is_socket() or None):
            yield


def swupdate_device(stack: ExitStack, releases: SwupdateReleases, options: Sequence[str] = ("-B", "none")) -> DeviceMaker:
    """A maker of devices that take the bundles of `releases`; `options` are the daemon's."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swu")))
        stack.enter_context(SwupdateDaemon(sockets, options).serving())
        return device_at(sockets, folder, releases, disk)

    return make


def device_at(sockets: Path, folder: Path, releases: SwupdateReleases, disk: Disk | None = None) -> Device:
    """A device whose daemon has its sockets in that folder, or will have them."""
    disk = disk or Disk()
    _fill(folder, releases)
    board = simulated_board(folder, disk=disk)
    config = SwupdateConfig(_slots(folder, releases), need_tool("swupdate-client"), sockets)
    driver = SwupdateDriver(config, Surroundings(disk, folder / "state", DEMO, board.bootloader))
    board.power_on()
    files = {slot: tuple(slot_path(folder, slot, part) for part in _PARTS) for slot in SELECTIONS}
    return Device(driver, board, folder, files)


def _fill(folder: Path, releases: SwupdateReleases) -> None:
    """Slot a holds version 1, slot b nothing; the links lead here."""
    for slot in SELECTIONS:
        for part, content in (("kernel", make_kernel(1)), ("root", make_root(1))):
            filled = content if slot == "a" else b""
            slot_path(folder, slot, part).write_bytes(filled + b"\xff" * (CAPACITY - len(filled)))
            link = releases.link(part, slot)
            link.unlink(missing_ok=True)
            link.symlink_to(slot_path(folder, slot, part))


def _slots(folder: Path, releases: SwupdateReleases) -> tuple[SlotConfig, ...]:
    return tuple(
        SlotConfig(
            slot,
            selection,
            tuple(PartConfig(part, str(releases.link(part, slot)), slot_path(folder, slot, part)) for part in _PARTS),
        )
        for slot, selection in SELECTIONS.items()
    )


def _apart() -> list[str]:
    """A network of its own: every swupdate of a network listens on the same abstract socket."""
    return [need_tool("unshare"), *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
