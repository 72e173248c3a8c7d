"""The three devices of the demo's line that cannot run an agent, each in a folder, and what the gateway's configuration says.

They are read as a technician would: their power is cut and given again, then each is asked for its version, and the image is read
back out of it. A trial that nobody confirmed does not outlast that.
"""

import hashlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.demo.line_figures import LineDevice
from gateway.demo.line_release import BAD, FPGA, MOTOR, OLD, RADIO, SELECTION, LineRelease, hardware_of
from gateway.demo.release import REPOSITORY
from gateway.simulators.cpu_tree import BOOT_FIRMWARE, CpuTree, make_tree, serve_tree
from gateway.simulators.fpga import GOLDEN_VERSION, Fpga, create_fpga
from gateway.simulators.mcu import McuFaults
from gateway.simulators.mcu_folder import McuFolder, kept_alive, make_mcu, misbehave
from gateway.simulators.mcu_server import serve_udp

_REGIONS = ("first", "second")
_HEALTH = "health = { deadline_s = 30.0, interval_s = 0.1, passes = 1 }\n"


@dataclass(frozen=True, slots=True)
class LineDevices:
    """A motor's controller on UDP, an FPGA behind a flash chip, and a radio's processor under remoteproc."""

    motor: McuFolder
    udp_port: int
    fpga: Fpga
    radio: CpuTree

    def sections(self) -> str:
        """What `gateway.toml` says of them."""
        kinds = {MOTOR: self._motor(), FPGA: self._fpga(), RADIO: self._radio()}
        return "".join(_section(node, kind, options) for node, (kind, options) in kinds.items())

    def read(self) -> tuple[LineDevice, ...]:
        """Switch each off and on, and read it."""
        self.motor.mcu.start()
        self.fpga.load()
        self.radio.power_cycle()
        bitstream = self.fpga.content(self.fpga.selected()).rstrip(b"\xff")
        firmware = (self.radio.folder / "firmware" / BOOT_FIRMWARE).read_bytes()
        return (
            _read(MOTOR, "mcuboot", self.motor.mcu.version(), self.motor.mcu.flash().places[0]),
            _read(FPGA, "fpga_flash", self.fpga.version(), bitstream),
            _read(RADIO, "remoteproc", self.radio.cpu.version(), firmware),
        )

    def _motor(self) -> tuple[str, Mapping[str, object]]:
        waits = {"settle_s": 0.0, "answer_timeout_s": 1.0, "erase_timeout_s": 10.0, "start_timeout_s": 5.0, "tries": 5}
        switch = ["/bin/touch", str(self.motor.folder / "power")]
        return "mcuboot", {"host": "127.0.0.1", "udp_port": self.udp_port, "power_cycle": switch, **waits}

    def _fpga(self) -> tuple[str, Mapping[str, object]]:
        folder, call = str(self.fpga.folder), [str(Path(sys.executable).with_name("fieldrelay")), "simulate", "fpga"]
        return "fpga_flash", {
            "chip_file": str(self.fpga.chip),
            "layout": str(self.fpga.layout),
            "regions": _REGIONS,
            "golden_versions": [GOLDEN_VERSION],
            "version_command": ["/bin/cat", str(self.fpga.register)],
            "trigger_command": [*call, "load", folder],
            "select_command": [*call, "select", folder],
            "selected_command": ["/bin/cat", str(self.fpga.straps)],
            "settle_s": 0.0,
            "watch_s": 0.3,
            "poll_interval_s": 0.1,
        }

    def _radio(self) -> tuple[str, Mapping[str, object]]:
        return "remoteproc", {
            "root": str(self.radio.root),
            "firmware_folder": str(self.radio.folder / "firmware"),
            "boot_firmware": BOOT_FIRMWARE,
            "version_file": str(self.radio.folder / "version"),
            "watch_s": 0.3,
            "poll_interval_s": 0.1,
        }


@asynccontextmanager
async def line_devices(folder: Path, release: LineRelease) -> AsyncIterator[LineDevices]:
    """The devices, new and alive; the motor's image `BAD` starts and never answers."""
    motor = make_mcu(folder / "motor", release.content[MOTOR, OLD])
    misbehave(folder / "motor", McuFaults(silent_versions=(f"{BAD}.0",)))
    fpga = create_fpga(folder / "fpga", factory=release.content[FPGA, OLD], updates=_REGIONS)
    radio = make_tree(folder / "radio", release.content[RADIO, OLD])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(kept_alive(motor))
        await stack.enter_async_context(serve_tree(radio))
        port = await stack.enter_async_context(serve_udp(motor.mcu))
        yield LineDevices(motor, port, fpga, radio)


def _section(node: str, kind: str, options: Mapping[str, object]) -> str:
    known = ", ".join(f"{key} = {_toml(value)}" for key, value in {"selection": SELECTION, **options}.items())
    return (
        f'\n[[attached]]\nid = "{node}"\nhardware = "{hardware_of(node)}"\nrepository = "{REPOSITORY}"\n'
        f'driver = {{ kind = "{kind}", {kind} = {{ {known} }} }}\n{_HEALTH}'
    )


def _toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value)


def _read(node: str, kind: str, says: str, image: bytes) -> LineDevice:
    return LineDevice(node, kind, says, hashlib.sha256(image).hexdigest())
