"""Images with a DFU suffix (USB DFU 1.1, appendix B)."""

import random
import struct
import zlib


def dfu_image(version: str, *, product: int = 0xDF11) -> bytes:
    """For the device 0483:`product`; the first line is the version."""
    major, _, minor = version.partition(".")
    body = f"{version}\n".encode() + random.Random(version).randbytes(2_000)
    suffix = struct.pack("<HHHH3sB", int(major) << 8 | int(minor) << 4, product, 0x0483, 0x0100, b"UFD", 16)
    return body + suffix + struct.pack("<I", zlib.crc32(body + suffix) ^ 0xFFFFFFFF)
