"""Images for simulated microcontrollers: whole, with a hash, and without a signature (MCUboot `docs/design.md`, "Image format").

Those for a real device are made and signed by `imgtool sign`; a simulated one takes these, too.
"""

import hashlib
import struct
from typing import Final

from update.bundle.mcuboot_image import ImageVersion

_MAGIC: Final = 0x96F3B83D
_TLV_MAGIC: Final = 0x6907
_SHA256: Final = 0x10
_HEADER_BYTES: Final = 0x200
_HEADER: Final = struct.Struct("<IIHHIIBBHII")


def make_mcu_image(version: str, body: bytes) -> bytes:
    """An image of `version` (`1.2.3`, `1.2.3+4`). Errors: `DeviceImageError` for one that is no version."""
    number = ImageVersion.parse(version)
    sizes = (_HEADER_BYTES, 0, len(body), 0)
    head = _HEADER.pack(_MAGIC, 0, *sizes, number.major, number.minor, number.revision, number.build, 0)
    signed = head.ljust(_HEADER_BYTES, b"\0") + body
    record = struct.pack("<HH", _SHA256, 32) + hashlib.sha256(signed).digest()
    return signed + struct.pack("<HH", _TLV_MAGIC, len(record) + 4) + record
