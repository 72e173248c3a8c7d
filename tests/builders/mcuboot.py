"""Images of microcontrollers byte by byte: good ones, and wrong ones that imgtool would not make.

make_image("1.2.3+4", b"body")                      # as imgtool sign -v 1.2.3+4 would, with a hash and no signature
make_image("1.0.0", b"body", counter=7, flags=0x4)  # with a security counter; encrypted, as it says
"""

import hashlib
import struct
from collections.abc import Sequence

from update.bundle.mcuboot_image import SECURITY_COUNTER, ImageVersion

HEADER_SIZE = 0x200
SHA256 = 0x10


def make_image(
    version: str,
    body: bytes,
    *,
    magic: int = 0x96F3B83D,
    flags: int = 0,
    counter: int | None = None,
    tlvs: Sequence[tuple[int, bytes]] = (),
    image_hash: bytes | None = None,
    header_size: int = HEADER_SIZE,
) -> bytes:
    """A whole image; `image_hash` may lie, `tlvs` are put behind the hash."""
    number = ImageVersion.parse(version)
    protected = b"" if counter is None else area(0x6908, [(SECURITY_COUNTER, counter.to_bytes(4, "little"))])
    fields = (
        magic,
        0,
        header_size,
        len(protected),
        len(body),
        flags,
        number.major,
        number.minor,
        number.revision,
        number.build,
        0,
    )
    signed = struct.pack("<IIHHIIBBHII", *fields).ljust(header_size, b"\0") + body + protected
    known = hashlib.sha256(signed).digest() if image_hash is None else image_hash
    return signed + area(0x6907, [(SHA256, known), *tlvs])


def area(magic: int, tlvs: Sequence[tuple[int, bytes]]) -> bytes:
    """One TLV area."""
    records = b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in tlvs)
    return struct.pack("<HH", magic, len(records) + 4) + records
