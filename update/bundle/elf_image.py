"""Firmware in ELF, judged before a processor is stopped for it.

The rules are those by which Linux refuses to start a remote processor (kernel documentation, "Remote Processor Framework", and
the gABI, chapters 4 and 5): the magic, the class, the byte order, program headers that are there. Beyond that every segment must
lie within the file, so that a truncated one is found before it is loaded, and the file must be for the machine that is expected.

    bytes  0  magic 7f 45 4c 46   4  class (1: 32 bits, 2: 64 bits)   5  order (1: little, 2: big)   18  machine u16
    32 bits:  28  offset of the program headers u32   42  their size u16   44  their number u16
    64 bits:  32  offset of the program headers u64   54  their size u16   56  their number u16
"""

import struct
from typing import Final

from update.errors import DeviceImageError

_MAGIC: Final = b"\x7fELF"
_MAX_SEGMENTS: Final = 4096


def check_elf(data: bytes | memoryview, *, machine: int | None = None) -> None:
    """`DeviceImageError` unless `data` is whole and, if `machine` (`e_machine`) is given, for that kind of processor."""
    if len(data) < 64 or bytes(data[:4]) != _MAGIC:
        raise DeviceImageError(
            f"the image is no ELF file: it has {len(data)} bytes and begins with {bytes(data[:4]).hex() or 'nothing'}"
        )
    order, wide = {1: "<", 2: ">"}.get(data[5]), {1: False, 2: True}.get(data[4])
    if order is None or wide is None:
        raise DeviceImageError(f"the image has ELF class {data[4]} and byte order {data[5]}; 1 and 2 are known")
    found = struct.unpack_from(f"{order}H", data, 18)[0]
    if machine is not None and found != machine:
        raise DeviceImageError(f"the image is for processors of kind {found} (e_machine), the device is of kind {machine}")
    _check_segments(data, order, wide=wide)


def _check_segments(data: bytes | memoryview, order: str, *, wide: bool) -> None:
    start = struct.unpack_from(f"{order}Q" if wide else f"{order}I", data, 32 if wide else 28)[0]
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    form = struct.Struct(f"{order}8xQ16xQQ8x" if wide else f"{order}4xI8xII8x")
    if not 0 < count <= _MAX_SEGMENTS or size < form.size or start + count * size > len(data):
        raise DeviceImageError(
            f"the image has {len(data)} bytes, and says that {count} program headers of {size} bytes begin at {start}; "
            "it is truncated or damaged: build it again"
        )
    for number in range(count):
        offset, in_file, in_memory = form.unpack_from(data, start + number * size)
        if offset + in_file > len(data) or (_is_loaded(data, order, start + number * size) and in_file > in_memory):
            raise DeviceImageError(
                f"segment {number} of the image has {in_file} bytes at {offset}, the file has {len(data)}; "
                "it is truncated or damaged: build it again"
            )


def _is_loaded(data: bytes | memoryview, order: str, place: int) -> bool:
    """Whether a program header is of type PT_LOAD."""
    return bool(struct.unpack_from(f"{order}I", data, place)[0] == 1)
