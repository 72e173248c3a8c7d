"""A device behind a stock SWUpdate's webserver for the contract suite of drivers: the server runs in a thread of its own.

The device has a bootloader that tries what was installed twice and returns by itself; a command confirms. The bundle that it
came with was kept, as after an earlier update.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import SlotState, Surroundings, bundle_identity
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from node_agent.drivers.swupdate_web.archive import Archive
from node_agent.drivers.swupdate_web.device import SwupdateWebConfig, SwupdateWebDriver
from tests.builders.bundles import DEMO
from tests.builders.swupdate_device import WebDevice, web_device
from tests.contract.devices import Device, DeviceMaker, Release, quiet
from update.durable import Disk

_PATIENCE_S = 30.0
_STARTS = 2
_CONFIRM = "import sys, urllib.request; urllib.request.urlopen(urllib.request.Request(sys.argv[1], b''), timeout=20)"


@dataclass(frozen=True, slots=True)
class WebPower:
    """The power switch of the device; what its slots hold, the driver's records say."""

    device: WebDevice
    records: SlotRecords

    def decides(self) -> bytes:
        return f"{self.device.starts} {self.device.before} {self.device.tried}".encode()

    def power_on(self) -> str:
        self.device.power_on()
        return next(slot for slot in ("a", "b") if self.records.read(slot).version == self.device.running)


def web_device_maker(stack: ExitStack, factory: Release) -> DeviceMaker:
    """Devices that run `factory`; their servers end with `stack`."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        served = stack.enter_context(_served())
        kept, records = folder / "state/swupdate-web", SlotRecords(Disk(), folder / "state/swupdate-web")
        digest, size = Archive(Disk(), kept).keep("a", factory.bundle.file, quiet)
        parts = {"bundle": PartRecord(size, digest)}
        records.write("a", SlotRecord(SlotState.CONFIRMED, "1.0", bundle_identity(factory.bundle), parts=parts))
        config = SwupdateWebConfig(
            url=served.url,
            probe_url=served.probe_url,
            version_pattern="version=(.*)",
            boot_id_pattern="boot=(.*)",
            selection="stable,copy1",
            confirm_command=(sys.executable, "-c", _CONFIRM, f"{served.url}/confirmed"),
            falls_back=True,
            probe_interval_s=0.01,
        )
        driver = SwupdateWebDriver(config, Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader()))
        return Device(driver, WebPower(served, records), folder, {slot: (kept / f"{slot}.swu",) for slot in ("a", "b")})

    return make


@contextmanager
def _served() -> Iterator[WebDevice]:
    """The device's server, in a thread: the suite's power switch does not wait for an event loop."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), list[WebDevice]()
    stop = asyncio.Event()

    async def serve() -> None:
        async with web_device("1.0") as device:
            device.trial_starts = _STARTS
            found.append(device)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(_PATIENCE_S)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_PATIENCE_S)
        loop.close()
