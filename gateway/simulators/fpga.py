"""An FPGA with a flash chip, in a folder: it loads what the chip holds, falls back to its golden bitstream, and fails on demand.

The folder is the device. `chip.bin` is the flash, `layout.txt` says what is where in it (flashrom's form), `version` is the
register that tells what runs (no file: the FPGA is mute), `selected` names the update region that a load takes, and `fpga.json`
keeps the rest. Each command on the folder is what a moment of the device's life is, so that a driver's commands can be real
programs.

A load reads the selected region. A bitstream of this device is 8 bytes `FRBITS1` and NUL, u32 length of the body, u32 CRC-32 of
what follows, little endian, 32 bytes of version, padded with NUL, and the body. One that is not whole, or was told not to load,
is skipped, and the golden region is loaded instead.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from node_agent.drivers.fpga.layout import Region, parse_regions
from update.errors import StateError

_HEAD: Final = struct.Struct("<8sII32s")
_MAGIC: Final = b"FRBITS1\0"
_CHECKED_FROM: Final = 16
GOLDEN: Final = "golden"
GOLDEN_VERSION: Final = "golden-1"


@dataclass(frozen=True, slots=True)
class FpgaFaults:
    """Versions that misbehave: those `refused` do not load; those that are `mute` load, and then the FPGA tells nothing."""

    refused: tuple[str, ...] = ()
    mute: tuple[str, ...] = ()

    def keep(self, folder: Path) -> None:
        """From the next load on."""
        (folder / "faults.json").write_text(json.dumps(asdict(self)))


def read_faults(folder: Path) -> FpgaFaults:
    """Those of the device in `folder`."""
    path = folder / "faults.json"
    kept: Mapping[str, Sequence[str]] = json.loads(path.read_text()) if path.exists() else {}
    return FpgaFaults(**{name: tuple(versions) for name, versions in kept.items()})


def make_bitstream(version: str, body: bytes = b"logic" * 200) -> bytes:
    """A bitstream for this device."""
    name = version.encode()
    if not 0 < len(name) <= 32:
        raise StateError(f"a simulated bitstream's version has 1 to 32 bytes, got {len(name)}")
    checked = name.ljust(32, b"\0") + body
    return _HEAD.pack(_MAGIC, len(body), zlib.crc32(checked), name) + body


def read_version(flash: bytes) -> str | None:
    """The version of the bitstream at the beginning of `flash`; None where none is whole."""
    if len(flash) < _HEAD.size:
        return None
    magic, size, crc, name = _HEAD.unpack_from(flash)
    checked = flash[_CHECKED_FROM : _HEAD.size + size]
    if magic != _MAGIC or len(flash) < _HEAD.size + size or zlib.crc32(checked) != crc:
        return None
    return bytes(name).rstrip(b"\0").decode("utf-8", "replace")


class Fpga:
    """The device in `folder`."""

    def __init__(self, folder: Path) -> None:
        """`StateError` where there is none."""
        self.folder = folder
        self.chip = folder / "chip.bin"
        self.layout = folder / "layout.txt"
        self.register = folder / "version"
        self.straps = folder / "selected"
        if not self.chip.is_file() or not self.layout.is_file():
            raise StateError(f"{folder} holds no simulated FPGA; make one with `fieldrelay simulate fpga create {folder}`")

    def load(self) -> str:
        """Power, or the trigger: load the selected region, or else the golden one; the version that runs then, empty for none."""
        faults = read_faults(self.folder)
        candidates = (self._loadable(name, faults) for name in (self.selected(), GOLDEN))
        version = next((found for found in candidates if found), "")
        if not version or version in faults.mute:
            self.register.unlink(missing_ok=True)
        else:
            self.register.write_text(f"{version}\n")
        return version

    def version(self) -> str:
        """What the register says; empty where the FPGA is mute."""
        return self.register.read_text().strip() if self.register.exists() else ""

    def selected(self) -> str:
        """The update region that a load takes."""
        return self.straps.read_text().strip()

    def select(self, region: str) -> None:
        """Load this region from now on. `StateError` for one that is not there."""
        if region not in self.regions() or region == GOLDEN:
            raise StateError(f"no update region is called {region[:80]!r}; there are {', '.join(self.regions())}")
        self.straps.write_text(f"{region}\n")

    def tear(self, region: str, keep_bytes: int) -> None:
        """What a power cut leaves that came after `keep_bytes` of a write of `region`: erased flash behind them."""
        place = self.regions()[region]
        data = bytearray(self.chip.read_bytes())
        first = min(place.start + keep_bytes, place.end)
        data[first : place.end] = b"\xff" * (place.end - first)
        self.chip.write_bytes(data)

    def content(self, region: str) -> bytes:
        """All of a region."""
        place = self.regions()[region]
        return self.chip.read_bytes()[place.start : place.end]

    def regions(self) -> dict[str, Region]:
        """By name."""
        return parse_regions(self.layout.read_text())

    def _loadable(self, region: str, faults: FpgaFaults) -> str | None:
        if region not in self.regions():
            return None
        version = read_version(self.content(region))
        return None if version in faults.refused else version


def create_fpga(
    folder: Path, *, factory: bytes | None, updates: Sequence[str] = ("update",), region_bytes: int = 1 << 18
) -> Fpga:
    """A device with a golden bitstream, `factory` (or nothing) in its first update region, and power. Errors: `StateError`."""
    if (folder / "chip.bin").exists():
        raise StateError(f"{folder} holds a simulated FPGA already; remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = (GOLDEN, *updates)
    lines = [f"{number * region_bytes:08x}:{(number + 1) * region_bytes - 1:08x} {name}\n" for number, name in enumerate(names)]
    (folder / "layout.txt").write_text("".join(lines))
    contents = [make_bitstream(GOLDEN_VERSION), factory or b""]
    if max(map(len, contents)) > region_bytes:
        raise StateError(f"a bitstream of {max(map(len, contents))} bytes does not fit into a region of {region_bytes} bytes")
    contents += [b""] * (len(names) - len(contents))
    (folder / "chip.bin").write_bytes(b"".join(each.ljust(region_bytes, b"\xff") for each in contents))
    (folder / "selected").write_text(f"{updates[0]}\n")
    fpga = Fpga(folder)
    fpga.load()
    return fpga
