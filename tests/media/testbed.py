"""umockdev's testbed by ctypes: block devices without hardware. The process must run under `umockdev-wrapper`."""

import ctypes
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path


def _strings(*pairs: tuple[str, str]) -> "ctypes.Array[ctypes.c_char_p]":
    flat = [text.encode() for pair in pairs for text in pair]
    return (ctypes.c_char_p * (len(flat) + 1))(*flat, None)


class Testbed:
    """A machine of which we say what is plugged in."""

    __test__ = False  # no test, though it is called so

    def __init__(self) -> None:
        self._library = library = ctypes.CDLL("libumockdev.so.0")
        library.umockdev_testbed_new.restype = ctypes.c_void_p
        library.umockdev_testbed_add_devicev.restype = ctypes.c_char_p
        strings = ctypes.POINTER(ctypes.c_char_p)
        library.umockdev_testbed_add_devicev.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, strings, strings,
        ]  # fmt: skip
        library.umockdev_testbed_uevent.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
        library.umockdev_testbed_remove_device.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.umockdev_testbed_set_attribute.argtypes = [ctypes.c_void_p] + [ctypes.c_char_p] * 3
        library.umockdev_testbed_get_sys_dir.argtypes = [ctypes.c_void_p]
        library.umockdev_testbed_get_sys_dir.restype = ctypes.c_char_p
        self._bed = library.umockdev_testbed_new()
        self._sys = Path(library.umockdev_testbed_get_sys_dir(self._bed).decode())

    def add(self, subsystem: str, name: str, parent: str | None, attributes: dict[str, str], properties: dict[str, str]) -> str:
        """Plug in; its place in sysfs."""
        place = self._library.umockdev_testbed_add_devicev(
            self._bed,
            subsystem.encode(),
            name.encode(),
            None if parent is None else parent.encode(),
            _strings(*attributes.items()),
            _strings(*properties.items()),
        )
        return bytes(place).decode()

    def tell(self, place: str, action: str) -> None:
        """Send an event."""
        self._library.umockdev_testbed_uevent(self._bed, place.encode(), action.encode())

    def set(self, place: str, attribute: str, value: str) -> None:
        """Change an attribute."""
        self._library.umockdev_testbed_set_attribute(self._bed, place.encode(), attribute.encode(), value.encode())

    def remove(self, place: str) -> None:
        """Pull out: the event first, as it tells nothing by itself."""
        self.tell(place, "remove")
        self._library.umockdev_testbed_remove_device(self._bed, place.encode())
        rest = self._sys / "block" / Path(place).name
        if rest.is_symlink():  # which it forgets, and then dies of when the name comes again
            rest.unlink()


@dataclass
class Stick:
    """A USB stick with one partition, or none (`superfloppy`). `classes` are those of its interfaces."""

    bed: Testbed
    disk: str = "sda"
    serial: str = "0001"
    label: str = "UPDATE"
    filesystem: str = "vfat"
    superfloppy: bool = False
    classes: tuple[str, ...] = ("08",)
    places: list[str] = field(default_factory=list)
    told: bool = True
    _sequences: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def name(self) -> str:
        """The kernel's name of what holds the file system."""
        return self.disk if self.superfloppy else f"{self.disk}1"

    def plug_in(self) -> None:
        add, number = self.bed.add, next(self._sequences)
        usb = add(
            "usb", f"1-{self.disk}", None, {"idVendor": "46f4", "idProduct": "0001", "serial": self.serial},
            {"DEVTYPE": "usb_device"},
        )  # fmt: skip
        self.places = [usb]
        for index, each in enumerate(self.classes):
            self.places.append(
                add("usb", f"1-{self.disk}:1.{index}", usb, {"bInterfaceClass": each}, {"DEVTYPE": "usb_interface"})
            )
        holds = {"ID_FS_TYPE": self.filesystem, "ID_FS_LABEL": self.label, "ID_FS_UUID": f"AAAA-{self.serial}"}
        holds = holds if self.told else {}
        about_disk = {"DEVTYPE": "disk", "DEVNAME": f"/dev/{self.disk}", "ID_BUS": "usb"}
        whole = {**about_disk, **holds} if self.superfloppy else {**about_disk, "ID_PART_TABLE_TYPE": "dos"}
        attributes = {"size": "8192", "removable": "1", "ro": "0", "diskseq": str(number)}
        disk = add("block", self.disk, self.places[1] if len(self.places) > 1 else usb, attributes, whole)
        self.places.append(disk)
        if not self.superfloppy:
            part = {"DEVTYPE": "partition", "DEVNAME": f"/dev/{self.disk}1", "ID_BUS": "usb", **holds}
            self.places.append(add("block", f"{self.disk}1", disk, {"partition": "1", "size": "8000", "ro": "0"}, part))

    def pull(self) -> None:
        while self.places:
            self.bed.remove(self.places.pop())
