"""Which media are taken: a decision over what the system says of a device and what the site's file allows.

1. Only file systems of the list, only block devices with one, and no more bytes than the limit.
2. A USB device that is anything besides mass storage (a keyboard, a network card) is refused where `only_storage` holds: a stick
   that types is an attack.
3. What neither hangs on USB nor is removable is the machine's own, and ignored in silence, unless a section names its bus.
4. The first `[[allow]]` whose patterns all fit takes the medium; if none does, `unknown` says what becomes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from media.config import AllowSection, PolicySection, Unknown
from media.probing import LUKS
from update.errors import MediumRefusedError

MASS_STORAGE = "08"
"""The class of a USB interface (USB Mass Storage Class, overview 1.4)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A block device as the system describes it; empty where it says nothing. `name` is that of the kernel, such as `sda1`.

    `interfaces` are the classes of the USB device's interfaces, two hexadecimal digits each. `size_bytes` is 0 if unknown.
    `place` is its folder in sysfs, `sequence` what differs each time that a medium appears there (Linux 5.15, `diskseq`): two
    equal values are one and the same insertion.
    """

    name: str
    node: str
    bus: str = ""
    vendor: str = ""
    serial: str = ""
    label: str = ""
    filesystem: str = ""
    filesystem_id: str = ""
    port: str = ""
    interfaces: tuple[str, ...] = ()
    size_bytes: int = 0
    read_only: bool = False
    removable: bool = False
    place: str = ""
    sequence: str = ""

    @property
    def travels(self) -> bool:
        """Whether it is something that people carry: the machine's own disks are nobody's business."""
        return self.bus == "usb" or self.removable


class Taken(StrEnum):
    """What is done with a medium."""

    IMPORT = "import"
    SHOW = "show"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is done with it, by which section (None: by none)."""

    taken: Taken
    allow: AllowSection | None = None


def rule(device: Device, policy: PolicySection, allowed: Sequence[AllowSection]) -> Ruling:
    """Judge a device. Errors: `MediumRefusedError` says why it is refused whatever the sections say."""
    section = next((each for each in allowed if _fits(device, each)), None)
    if section is None and not device.travels:
        return Ruling(Taken.IGNORE)
    _refuse(device, policy)
    if section is not None:
        return Ruling(Taken.IMPORT, section)
    match policy.unknown:
        case Unknown.IMPORT:
            return Ruling(Taken.IMPORT)
        case Unknown.SHOW:
            return Ruling(Taken.SHOW)
        case Unknown.IGNORE:
            return Ruling(Taken.IGNORE)


def _refuse(device: Device, policy: PolicySection) -> None:
    if device.filesystem not in policy.filesystems and device.filesystem != LUKS:
        raise MediumRefusedError(
            f"{device.node} holds {device.filesystem or 'no file system that is known'}; "
            f"{', '.join(policy.filesystems)} are read here: format the stick as one of them"
        )
    if device.size_bytes > policy.max_bytes:
        raise MediumRefusedError(f"{device.node} has {device.size_bytes} bytes, at most {policy.max_bytes} are allowed")
    others = sorted(set(device.interfaces) - {MASS_STORAGE})
    if policy.only_storage and others:
        classes = ", ".join(others)
        raise MediumRefusedError(f"{device.node} is also a USB device of class {classes}, as attacks are; use a plain stick")


def _fits(device: Device, section: AllowSection) -> bool:
    pairs = (
        (device.bus, section.bus),
        (device.vendor, section.vendor),
        (device.serial, section.serial),
        (device.label, section.label),
        (device.port, section.port),
    )
    return all(fnmatchcase(value, pattern) for value, pattern in pairs)
