"""What block devices there are, and what comes and goes: the one door to pyudev.

Two sources: `udev`, after udevd has looked at a device (its words for the file system are used), or `kernel` where no udevd
runs; then the superblock is probed by `media.probing`. The monitor's descriptor is watched by the event loop. A `None` of the
monitor is an event of another subsystem, never the end; if the kernel had to drop events (ENOBUFS), all is enumerated anew.

What counts as a medium: partitions, and whole disks without partitions (a stick without a partition table, or an empty one). A
card reader stays when its card goes: its `change` with no bytes left is a removal. `Change.device` is None for what is gone.
"""

import asyncio
import errno
import logging
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyudev

from media.config import Events
from media.policy import Device
from media.probing import Probed, probe
from update.errors import ConfigurationError

_LOG = logging.getLogger(__name__)
_SECTOR = 512
_AT_ONCE: Final = 1000
_PATIENCE_S: Final = (0.0, 0.1, 0.3)
_PASSED_OVER = ("loop", "ram", "zram", "dm-", "md", "nbd", "fd", "sr")
_OTHER_BUSES = ("mmc", "nvme", "virtio", "scsi", "ata")


@dataclass(frozen=True, slots=True)
class Change:
    """A medium is there (`device`), or is not any more (None). `left_in`: it was there before we looked."""

    name: str
    device: Device | None
    left_in: bool = False


class Udev:
    """The machine's block devices. `probe_device` reads a superblock; it is asked only where udevd did not tell."""

    def __init__(self, events: Events = Events.UDEV, probe_device: Callable[[str], Probed] | None = None) -> None:
        self._context = pyudev.Context()
        self._events = events
        self._probe = probe_device or probe_node

    def here(self) -> tuple[Device, ...]:
        """Every medium that is there now, by name."""
        found = (self._device(each) for each in self._context.list_devices(subsystem="block"))
        return tuple(sorted((device for device in found if device is not None), key=lambda device: device.name))

    def look(self, name: str) -> Device | None:
        """The medium of this kernel name (`sda1`); None if there is none."""
        try:
            return self._device(pyudev.Devices.from_name(self._context, "block", name))
        except pyudev.DeviceNotFoundError:
            return None

    def is_present(self, device: Device) -> bool:
        """Whether this insertion is still there; asked from threads, since it may wait a moment."""
        return is_present(device)

    async def changes(self) -> AsyncIterator[Change]:
        """First what is there, marked `left_in`; then what happens, until the caller ends. Errors: `ConfigurationError`."""
        with self._monitor() as monitor:
            ready = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(monitor.fileno(), ready.set)
            try:
                for device in await asyncio.to_thread(self.here):
                    yield Change(device.name, device, left_in=True)
                while True:
                    await ready.wait()
                    ready.clear()
                    for change in await asyncio.to_thread(self._drain, monitor):
                        yield change
            finally:
                loop.remove_reader(monitor.fileno())

    @contextmanager
    def _monitor(self) -> Iterator[pyudev.Monitor]:
        try:
            monitor = pyudev.Monitor.from_netlink(self._context, source=str(self._events))
            monitor.filter_by(subsystem="block")
            monitor.start()
        except OSError as error:
            raise ConfigurationError(f"cannot hear events of {self._events}: {error}; see [media] events") from error
        yield monitor

    def _drain(self, monitor: pyudev.Monitor) -> list[Change]:
        """What has happened since, at most `_AT_ONCE` events at a time."""
        changes: list[Change] = []
        for _ in range(_AT_ONCE):
            try:
                event = monitor.poll(timeout=0)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                _LOG.warning("events were lost; all devices are looked at anew")
                return [*changes, *(Change(each.name, each) for each in self.here())]
            if event is not None:
                changes += self._change(event)
            elif not _waits(monitor.fileno()):
                break
        return changes

    def _change(self, event: pyudev.Device) -> Iterator[Change]:
        name = event.sys_name
        if event.action == "remove":
            yield Change(name, None)
            return
        device = self._device(event)
        if device is not None:
            yield Change(name, device)
        elif event.action == "change":
            yield Change(name, None)

    def _device(self, found: pyudev.Device) -> Device | None:
        try:
            return self._described(found)
        except (OSError, KeyError, UnicodeDecodeError) as error:  # it went away, or never told the truth
            _LOG.debug("%s cannot be described: %s", found.sys_name, error)
            return None

    def _described(self, found: pyudev.Device) -> Device | None:
        name, node = found.sys_name, found.device_node
        size = _number(found, "size") * _SECTOR
        if node is None or name.startswith(_PASSED_OVER) or not size or _has_partitions(found):
            return None
        told = found.properties
        usb = found.find_parent("usb", "usb_device")
        parent = None if told.get("DEVTYPE") == "disk" else found.parent
        disk = found if parent is None else parent  # a device of pyudev without properties is false
        what = self._filesystem(found)
        return Device(
            name=name,
            node=node,
            bus="usb" if usb is not None else _bus(found),
            vendor="" if usb is None else f"{_text(usb, 'idVendor')}:{_text(usb, 'idProduct')}",
            serial=told.get("ID_SERIAL_SHORT", "") if usb is None else _text(usb, "serial"),
            label=what.label,
            filesystem=what.filesystem,
            filesystem_id=what.id,
            port="" if usb is None else usb.sys_name,
            interfaces=() if usb is None else _interfaces(usb),
            size_bytes=size,
            read_only=_number(found, "ro") != 0,
            removable=_number(disk, "removable") != 0,
            place=found.sys_path,
            sequence=_text(disk, "diskseq"),
        )

    def _filesystem(self, found: pyudev.Device) -> Probed:
        told = found.properties
        if "ID_FS_TYPE" in told or self._events is Events.UDEV:
            return Probed(told.get("ID_FS_TYPE", ""), told.get("ID_FS_LABEL", ""), told.get("ID_FS_UUID", ""))
        return self._probe(str(found.device_node))


def probe_node(node: str) -> Probed:
    """Look at a device node; nothing known where it cannot be read."""
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        _LOG.info("cannot look at %s: %s", node, error.strerror)
        return Probed()
    try:
        return probe(lambda offset, length: os.pread(descriptor, length, offset))
    except (OSError, OverflowError) as error:
        _LOG.info("cannot read %s: %s", node, error)
        return Probed()
    finally:
        os.close(descriptor)


def is_present(device: Device) -> bool:
    """Whether this insertion is still there. A disk answers with errors shortly before it is gone: a moment is waited."""
    return all(_is_here(device, pause) for pause in _PATIENCE_S)


def is_here_now(device: Device) -> bool:
    """The same without waiting."""
    return _is_here(device, 0.0)


def _is_here(device: Device, pause_s: float) -> bool:
    if pause_s:
        time.sleep(pause_s)
    place = Path(device.place)
    try:
        if int((place / "size").read_text()) == 0:
            return False
        if not device.sequence:
            return True
        disk = place if (place / "diskseq").exists() else place.parent
        return (disk / "diskseq").read_text().strip() == device.sequence
    except (OSError, ValueError):
        return False


def _waits(descriptor: int) -> bool:
    """Whether more is there: a `None` of the monitor does not say so."""
    return bool(select.select([descriptor], [], [], 0)[0])


def _has_partitions(found: pyudev.Device) -> bool:
    if found.properties.get("DEVTYPE") != "disk":
        return False
    if "ID_PART_TABLE_TYPE" in found.properties and "ID_FS_TYPE" not in found.properties:
        return True
    return any(Path(found.sys_path).glob("*/partition"))


def _bus(found: pyudev.Device) -> str:
    told = found.properties.get("ID_BUS", "")
    return told or next((bus for bus in _OTHER_BUSES if found.find_parent(bus) is not None), "")


def _interfaces(usb: pyudev.Device) -> tuple[str, ...]:
    """The classes of all interfaces of a USB device."""
    files = sorted(Path(usb.sys_path).glob("*/bInterfaceClass"))
    return tuple(sorted({file.read_text(errors="replace").strip().lower() for file in files}))


def _text(found: pyudev.Device, name: str) -> str:
    value = found.attributes.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()


def _number(found: pyudev.Device, name: str) -> int:
    text = _text(found, name)
    return int(text) if text.isdecimal() else 0
