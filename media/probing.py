r"""Which file system lies on a block device, told by its superblock, where nobody has told us (no udevd).

Only what may be mounted here is recognised, by the fields that its own driver checks first:

- LUKS (on-disk format 1.2.3 and 2, section 2): `LUKS\xba\xbe` at byte 0, the UUID as text at byte 168.
- exFAT (Microsoft's specification, section 3.1): `EXFAT   ` at byte 3, the serial number at byte 100; the label is an
  entry of type 0x83 of the root folder (section 7.3).
- ext4 (kernel documentation, "The Super Block"): 0xEF53 at byte 1024 + 56; extents tell it from its elders.
- FAT (Microsoft's specification 1.03, section 3): 0x55AA at byte 510, the type's name in the extended boot record.

Nothing is followed that the superblock does not bound: a hostile one costs three short reads.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Read = Callable[[int, int], bytes]
"""(offset, length) in bytes; fewer bytes at the end of the device."""

LUKS: Final = "crypto_LUKS"
_HEAD_BYTES = 4096
_ROOT_BYTES = 4096
_NO_NAME = b"NO NAME    "
_EXTENTS, _JOURNAL = 0x40, 0x04


@dataclass(frozen=True, slots=True)
class Probed:
    """What lies there, in the words of udev's ID_FS_TYPE, ID_FS_LABEL and ID_FS_UUID; all empty for what is not known."""

    filesystem: str = ""
    label: str = ""
    id: str = ""


def probe(read: Read) -> Probed:
    """Look at a device. Errors: what `read` raises."""
    head = read(0, _HEAD_BYTES).ljust(_HEAD_BYTES, b"\0")
    if head.startswith(b"LUKS\xba\xbe"):
        return Probed(LUKS, _text(head[24:72]) if head[6:8] == b"\0\x02" else "", _text(head[168:208]))
    if head[3:11] == b"EXFAT   ":
        return Probed("exfat", _exfat_label(head, read), _serial(head[100:104]))
    if head[1080:1082] == b"\x53\xef":
        return _ext(head[1024:2048])
    if head[510:512] == b"\x55\xaa":
        return _fat(head)
    return Probed()


def _ext(block: bytes) -> Probed:
    compatible, incompatible = struct.unpack_from("<II", block, 92)
    kind = "ext4" if incompatible & _EXTENTS else "ext3" if compatible & _JOURNAL else "ext2"
    digits = block[104:120].hex()
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return Probed(kind, _text(block[120:136]), name)


def _fat(head: bytes) -> Probed:
    if head[82:90] == b"FAT32   ":
        label, serial = head[71:82], head[67:71]
    elif head[54:59] == b"FAT12" or head[54:59] == b"FAT16":
        label, serial = head[43:54], head[39:43]
    else:
        return Probed()
    return Probed("vfat", "" if label == _NO_NAME else _text(label), _serial(serial))


def _exfat_label(head: bytes, read: Read) -> str:
    heap, _, root = struct.unpack_from("<III", head, 88)
    sector, cluster = head[108], head[109]
    if not 9 <= sector <= 12 or cluster > 25 - sector or root < 2:
        return ""
    folder = read((heap << sector) + ((root - 2) << (sector + cluster)), _ROOT_BYTES)
    for start in range(0, len(folder) - 31, 32):
        if folder[start] == 0x83 and folder[start + 1] <= 11:
            return folder[start + 2 : start + 2 + 2 * folder[start + 1]].decode("utf-16-le", "replace")
    return ""


def _serial(number: bytes) -> str:
    return f"{number[3]:02X}{number[2]:02X}-{number[1]:02X}{number[0]:02X}"


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace").strip()
