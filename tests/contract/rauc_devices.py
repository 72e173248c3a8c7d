"""A device with the real rauc service for the contract suite of drivers: a custom bootloader that counts the starts of a trial.

with ExitStack() as stack:
    device = rauc_device(stack)(folder)     # slot a runs, slot b is empty
    device.board.power_on()                 # the bootloader chooses; the service starts anew from that slot
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.installers.rauc import RaucConfig, RaucDriver
from tests.builders.bundles import DEMO
from tests.builders.keys import NOW
from tests.contract.devices import Device, DeviceMaker, FileChunks, Release
from tests.interop.rauc_device import RaucDevice, need_loop_devices
from tests.interop.rauc_tool import COMPATIBLE, PKI, RaucTool
from update.bundle.rauc_reader import RaucPolicy, rauc_policy, verify_rauc_bundle
from update.durable import Disk

POLICY: RaucPolicy = rauc_policy((PKI.root.certificate,), NOW, intermediates=(PKI.intermediate.certificate,), accept_plain=True)
NOT_ACTIVATING = "activate-installed=false"
_TRIES, _KEPT = "2", "9"
_ENVIRONMENT = f"ORDER='a b'\nLEFT_a={_KEPT}\nLEFT_b={_KEPT}\n"
# As RAUC drives U-Boot (BOOT_ORDER, BOOT_x_LEFT), but for the starts of a slot that was marked good, which are not counted.
_BACKEND = f"""#!/bin/sh
cd "$(dirname "$0")" && . ./environment
left() {{ eval "echo \\$LEFT_$1"; }}
save() {{ printf "ORDER='%s'\\nLEFT_a=%s\\nLEFT_b=%s\\n" "$ORDER" "$LEFT_a" "$LEFT_b" > new && mv new environment; }}
without() {{ rest=; for each in $ORDER; do [ "$each" = "$1" ] || rest="$rest $each"; done; }}
case "$1" in
  get-primary) for each in $ORDER; do [ "$(left "$each")" -gt 0 ] && echo "$each" && exit 0; done; exit 1 ;;
  set-primary) without "$2"; ORDER="$2$rest"; eval "LEFT_$2={_TRIES}"; save ;;
  get-state) case " $ORDER " in *" $2 "*) [ "$(left "$2")" -gt 0 ] && echo good && exit 0 ;; esac; echo bad ;;
  set-state) if [ "$3" = good ]; then eval "LEFT_$2={_KEPT}"; else without "$2"; ORDER=${{rest# }}; eval "LEFT_$2=0"; fi; save ;;
  get-current) exit 1 ;;
esac
"""


@dataclass(slots=True)
class RaucBoard:
    """The power switch of one device; whatever runs is ended with `stack`."""

    device: RaucDevice
    stack: ExitStack
    service: AbstractContextManager[None] | None = None

    def decides(self) -> bytes:
        return self._chosen().encode()

    def power_on(self) -> str:
        self.power_off()
        slot = self._chosen()
        variables = self._variables()
        if (left := int(variables[f"LEFT_{slot}"])) < int(_KEPT):
            variables[f"LEFT_{slot}"] = str(left - 1)
        lines = [f"{name}='{value}'\n" for name, value in variables.items()]
        (self.device.folder / "environment").write_text("".join(lines))
        self.service = self.device.service(slot)
        self.service.__enter__()
        return slot

    def power_off(self) -> None:
        if self.service is not None:
            self.service.__exit__(None, None, None)
            self.service = None

    def crash(self) -> None:
        """The service dies without a word."""
        self.device.kill_service()
        self.power_off()

    def _chosen(self) -> str:
        variables = self._variables()
        return next(slot for slot in variables["ORDER"].split() if variables[f"LEFT_{slot}"] != "0")

    def _variables(self) -> dict[str, str]:
        lines = (self.device.folder / "environment").read_text().splitlines()
        return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


class RaucReleases:
    """Bundles of one folder by version, made once, and verified."""

    def __init__(self, folder: Path) -> None:
        self.tool = RaucTool(folder)
        self._made: dict[int, Release] = {}

    def __call__(self, version: int, /, bootenv: Sequence[Mapping[str, object]] = ()) -> Release:
        assert not bootenv, "RAUC's bundles bring no boot variables"
        if version not in self._made:
            file = self.tool.bundle("plain", name=f"release-{version}", version=f"{version}.0", seed=version)
            image = (self.tool.folder / f"content-release-{version}" / "rootfs.img").read_bytes()
            self._made[version] = Release(verify_rauc_bundle(file, POLICY), FileChunks({}), image, b"")
        return self._made[version]


def rauc_device(stack: ExitStack, releases: RaucReleases, handlers: Sequence[str] = ()) -> DeviceMaker:
    """A maker of devices that take the bundles of `releases`; `handlers` are lines of system.conf."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        need_loop_devices()
        home = folder / "r"
        home.mkdir()
        (home / "environment").write_text(_ENVIRONMENT)
        tool = releases.tool
        made = RaucDevice(
            home,
            tool.files.anchors,
            compatible=COMPATIBLE,
            bootnames="ab",
            backend=_BACKEND,
            system=[NOT_ACTIVATING],
            handlers=handlers,
        )
        stack.enter_context(made.bus())
        board = RaucBoard(made, stack)
        stack.callback(made.unmount)
        stack.callback(board.power_off)
        board.power_on()
        return Device(make_driver(made, folder, disk), board, folder, _files(home))

    return make


def make_driver(made: RaucDevice, folder: Path, disk: Disk | None = None, *, install_timeout_s: float = 600.0) -> RaucDriver:
    """The driver of a device, as a fresh process has it."""
    config = RaucConfig(made.folder / "system.conf", made.address, install_timeout_s=install_timeout_s)
    return RaucDriver(config, Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader()))


def _files(home: Path) -> Mapping[str, tuple[Path, ...]]:
    return {slot: (home / f"rootfs.{slot}",) for slot in "ab"}
