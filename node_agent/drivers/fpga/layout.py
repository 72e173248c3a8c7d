"""Which bytes of a flash chip may be written: flashrom's layout file, read strictly (flashrom(8), option `-l`).

A line is `START:END NAME`, both addresses hexadecimal, END being the last byte. The golden region holds what the FPGA falls
back to: it is never written here, and no region that is may touch it. Neither may they share a block of the chip with anything
else: a chip is erased by blocks, so a power cut in one that two regions share would cost both.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from update.errors import ConfigurationError

_LINE: Final = re.compile(r"([0-9A-Fa-f]{1,8}):([0-9A-Fa-f]{1,8})[ \t]+([A-Za-z0-9._-]{1,64})", re.ASCII)
_MAX_FILE_BYTES: Final = 64 << 10
_MAX_REGIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes `start` to `end` (exclusive) of the chip."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def touches(self, other: "Region") -> bool:
        """Whether any byte is in both."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.name} ({self.start:#x} to {self.end - 1:#x})"


@dataclass(frozen=True, slots=True)
class Layout:
    """The region that is never written, and those that are."""

    golden: Region
    updates: tuple[Region, ...]

    @property
    def room_bytes(self) -> int:
        """How large a bitstream may be: it must fit everywhere."""
        return min(region.size for region in self.updates)

    @property
    def end(self) -> int:
        """How large the chip must be."""
        return max(region.end for region in (self.golden, *self.updates))

    def text(self) -> str:
        """As flashrom reads it."""
        return "".join(f"{each.start:08x}:{each.end - 1:08x} {each.name}\n" for each in (self.golden, *self.updates))


def read_layout(path: Path, golden: str, updates: Sequence[str], block_bytes: int) -> Layout:
    """The layout of a file. `ConfigurationError` for one that is malformed, lacks a region, or endangers the golden one."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"driver.layout: cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"driver.layout: {path} has more than {_MAX_FILE_BYTES} bytes; it is no layout")
    return make_layout(parse_regions(data.decode("utf-8", "replace")), golden, updates, block_bytes)


def parse_regions(text: str) -> dict[str, Region]:
    """Every region by its name. `ConfigurationError` names the line."""
    regions: dict[str, Region] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ConfigurationError(f"driver.layout: line {number} is not 'START:END NAME': {line[:80]!r}")
        region = Region(found[3], int(found[1], 16), int(found[2], 16) + 1)
        if region.size <= 0:
            raise ConfigurationError(f"driver.layout: line {number}: region {region.name} ends before it starts")
        if region.name in regions or len(regions) >= _MAX_REGIONS:
            raise ConfigurationError(f"driver.layout: line {number}: {region.name} is there twice, or there are too many regions")
        regions[region.name] = region
    return regions


def make_layout(regions: dict[str, Region], golden: str, updates: Sequence[str], block_bytes: int) -> Layout:
    """`regions` with their roles, checked. Errors: `ConfigurationError`."""
    if missing := [name for name in (golden, *updates) if name not in regions]:
        raise ConfigurationError(f"driver.layout: no region {', '.join(missing)}; there are {', '.join(regions) or 'none'}")
    if len({golden, *updates}) != 1 + len(updates):
        raise ConfigurationError("driver.regions: the golden region is not written, and no region is named twice")
    layout = Layout(regions[golden], tuple(regions[name] for name in updates))
    for number, region in enumerate(layout.updates):
        for other in (layout.golden, *layout.updates[:number]):
            if region.touches(other):
                raise ConfigurationError(f"driver.layout: region {region} touches {other}; nothing is written with that layout")
        if region.start % block_bytes or region.end % block_bytes:
            raise ConfigurationError(
                f"driver.layout: region {region} does not begin and end with a block of {block_bytes} bytes: to erase it would "
                "touch what is beside it; move it, or say in block_bytes what the chip erases at once"
            )
    return layout
