"""The image of a microcontroller with MCUboot: what stands in it, read with limits (MCUboot `docs/design.md`, "Image format").

All numbers are little endian. A header of 32 bytes (magic, load address u32, header size u16, size of the protected TLVs u16,
image size u32, flags u32, version u8 u8 u16 u32, padding) is followed, from `header size` on, by the image, by protected TLVs and
by the other TLVs. A TLV area is magic u16 and length u16 (these four bytes included), then records of type u16, length u16, data.

The hash TLV covers header, image and protected TLVs. It is what a device calls the image by over SMP, and it is not the hash of
the file. `parse_image` recomputes it: an image whose hash does not fit never leaves here.

Refused, although MCUboot knows them: encrypted and compressed images (their hash covers what only the device sees), images that
are not bootable, and anything behind the TLVs, because a slot's trailer there may say "confirmed" and so end a trial before it
began.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from update.errors import DeviceImageError, HashMismatchError, LimitError, UnsupportedError

HEADER_BYTES: Final = 32
MAX_IMAGE_BYTES: Final = 64 << 20
"""More than any microcontroller's slot; devices have their own, smaller limit."""

_HEADER: Final = struct.Struct("<IIHHIIBBHII")
_INFO: Final = struct.Struct("<HH")
_MAGIC: Final = 0x96F3B83D
_TLV_MAGIC: Final = 0x6907
_PROTECTED_MAGIC: Final = 0x6908
_MAX_TLVS: Final = 64
_NOT_BOOTABLE: Final = 0x10
_UNREADABLE: Final = 0x4 | 0x8 | 0x200 | 0x400 | 0x800
"""AES-128, AES-256, and the compressions LZMA1, LZMA2, Arm Thumb."""

KEY_HASH: Final = 0x01
SECURITY_COUNTER: Final = 0x50
_HASHES: Final[Mapping[int, str]] = {0x10: "sha256", 0x11: "sha384", 0x12: "sha512"}
_COUNTER_BYTES: Final = 4
_VERSION_PARTS: Final = 4


@dataclass(frozen=True, slots=True, order=True)
class ImageVersion:
    """MCUboot's four numbers, in the order in which they compare."""

    major: int
    minor: int
    revision: int
    build: int

    def __str__(self) -> str:
        """As imgtool writes it: `1.2.3`, or `1.2.3+4` where there is a build number."""
        return f"{self.major}.{self.minor}.{self.revision}" + (f"+{self.build}" if self.build else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `1.2.3`, imgtool's `1.2.3+4`, or `1.2.3.4` as Zephyr reports the same. Errors: `DeviceImageError`."""
        parts = text.replace("+", ".", 1).split(".")
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= 10]
        if len(numbers) != len(parts) or not 1 <= len(parts) <= _VERSION_PARTS:
            raise DeviceImageError(f"{text[:40]!r} is no version of an image; it must be like 1.2.3 or 1.2.3+4")
        return cls(*numbers, *[0] * (_VERSION_PARTS - len(numbers)))


@dataclass(frozen=True, slots=True)
class McubootImage:
    """What an image says of itself. `signed` are the bytes that hash and signature cover; `tlvs` are (type, data) in order."""

    version: ImageVersion
    load_address: int
    image_hash: bytes
    security_counter: int | None
    signed: bytes
    tlvs: tuple[tuple[int, bytes], ...]

    def records(self, kind: int) -> tuple[bytes, ...]:
        """The data of every TLV of that type."""
        return tuple(data for found, data in self.tlvs if found == kind)


def parse_image(data: bytes, *, max_bytes: int = MAX_IMAGE_BYTES) -> McubootImage:
    """Read a whole file, and recompute its hash.

    Errors: `LimitError` (more than `max_bytes`, too many TLVs), `DeviceImageError` (no image, truncated, or more than one),
    `UnsupportedError`, `HashMismatchError`.
    """
    if len(data) > max_bytes:
        raise LimitError(f"the image has {len(data)} bytes, {max_bytes} fit")
    if len(data) < HEADER_BYTES:
        raise DeviceImageError(f"an image of MCUboot begins with {HEADER_BYTES} bytes of header, the file has {len(data)}")
    magic, address, header_size, protected_size, size, flags, major, minor, revision, build, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DeviceImageError(
            f"the file begins with {magic:#010x}, an image of MCUboot with {_MAGIC:#010x}: sign it with imgtool"
        )
    if header_size < HEADER_BYTES:
        raise DeviceImageError(f"the header says it has {header_size} bytes, it has at least {HEADER_BYTES}")
    _check_flags(flags)
    end = header_size + size
    protected = tuple(_area(data, end, _PROTECTED_MAGIC, protected_size)) if protected_size else ()
    end += protected_size
    plain = tuple(_area(data, end, _TLV_MAGIC, None))
    tlvs = (*protected, *plain)
    signed = data[:end]
    return McubootImage(
        version=ImageVersion(major, minor, revision, build),
        load_address=address,
        image_hash=_check_hash(signed, plain),
        security_counter=_counter(protected),
        signed=signed,
        tlvs=tlvs,
    )


def _check_flags(flags: int) -> None:
    if flags & _UNREADABLE:
        raise UnsupportedError(f"the image is encrypted or compressed (flags {flags:#x}); only plain images can be verified here")
    if flags & _NOT_BOOTABLE:
        raise DeviceImageError(f"the image is marked as not bootable (flags {flags:#x})")


def _area(data: bytes, start: int, magic: int, size: int | None) -> Iterator[tuple[int, bytes]]:
    """The records of the area at `start`; without a `size` it must end with the file."""
    if start + _INFO.size > len(data):
        raise DeviceImageError(f"the image is truncated: its TLVs are at byte {start}, the file has {len(data)}")
    found, length = _INFO.unpack_from(data, start)
    if found != magic:
        raise DeviceImageError(f"at byte {start} is {found:#06x}, a TLV area begins with {magic:#06x}: the file is damaged")
    end = start + length
    if length < _INFO.size or end > len(data) or (size is not None and length != size):
        raise DeviceImageError(f"the TLV area at byte {start} says {length} bytes, which does not fit: the file is truncated")
    if size is None and end != len(data):
        raise DeviceImageError(
            f"the image ends at byte {end}, the file at {len(data)}: sign it without --pad, --test and --confirm"
        )
    yield from _records(data, start + _INFO.size, end)


def _records(data: bytes, position: int, end: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(_MAX_TLVS):
        if position == end:
            return
        if position + _INFO.size > end:
            raise DeviceImageError(f"a TLV at byte {position} does not fit into its area, which ends at {end}")
        kind, length = _INFO.unpack_from(data, position)
        position += _INFO.size
        if position + length > end:
            raise DeviceImageError(f"the TLV {kind:#04x} at byte {position} has {length} bytes, its area ends at {end}")
        yield kind, data[position : position + length]
        position += length
    if position != end:
        raise LimitError(f"the image has more than {_MAX_TLVS} TLVs in one area")


def _check_hash(signed: bytes, tlvs: tuple[tuple[int, bytes], ...]) -> bytes:
    found = [(kind, data) for kind, data in tlvs if kind in _HASHES]
    if len(found) != 1:
        raise DeviceImageError(f"the image has {len(found)} hashes, it must have one: sign it with imgtool")
    kind, expected = found[0]
    computed = hashlib.new(_HASHES[kind], signed).digest()
    if computed != expected:
        raise HashMismatchError(
            f"the image says {_HASHES[kind]} {expected.hex()}, its content has {computed.hex()}: it is damaged"
        )
    return expected


def _counter(protected: tuple[tuple[int, bytes], ...]) -> int | None:
    """The security counter. Only a protected one counts: nothing signs the others."""
    found = [data for kind, data in protected if kind == SECURITY_COUNTER]
    if not found:
        return None
    if len(found) > 1 or len(found[0]) != _COUNTER_BYTES:
        raise DeviceImageError("the image must have one security counter of 4 bytes")
    return int.from_bytes(found[0], "little")
