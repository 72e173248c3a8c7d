"""Whole devices for the contract suite of drivers: slots, bootloader, power switch, and releases to install."""

import gzip
import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import zstandard

from node_agent.drivers.driver import Driver, Surroundings
from node_agent.drivers.linux import LinuxConfig, LinuxDriver
from node_agent.drivers.simulated import SimulatedConfig, SimulatedDriver
from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from tests.builders.bundles import DEMO, describe, image, script, signed, verified
from tests.contract.boards import BoardMaker, simulated_board, uboot_board
from update.bundle.verified import AnyBundle
from update.chunks.pair import PatchOffer
from update.digest import Digest
from update.durable import Disk
from update.errors import UnreachableError, WireError
from update.publish.images import write_zchunk, zck_header

ROOT_BYTES = 1 << 20
KERNEL_BYTES = 100_000
CAPACITY = ROOT_BYTES + (1 << 19)
URL = "http://repository.example/targets/root.zck"


def make_root(version: int) -> bytes:
    """An image of `ROOT_BYTES` whose versions share most content; it holds zeros and a repeated piece."""
    source = random.Random(1)
    repeated = source.randbytes(200_000)
    content = bytearray(source.randbytes(300_000) + bytes(256_000) + repeated)
    content += source.randbytes(ROOT_BYTES - len(content))
    edits = random.Random(version)
    for place in [edits.randrange(300_000) for _ in range(2 * version)]:
        content[place : place + 500] = edits.randbytes(500)
    if version > 2:
        content[700_000:850_000] = content[850_000:1_000_000] = edits.randbytes(150_000)
        content[400_000:400_000] = edits.randbytes(4096)  # what follows moves
    return bytes(content[:ROOT_BYTES])


def make_kernel(version: int) -> bytes:
    return random.Random(100 + version).randbytes(KERNEL_BYTES)


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch that is offered: what is said of it, what comes, and how that ends."""

    offer: PatchOffer
    data: bytes
    breaks: WireError | None = None


@dataclass(slots=True)
class FileChunks:
    """A `ChunkSource` that reads a local `.zck`, counts what it is asked for, and fails on demand."""

    files: Mapping[str, Path]
    piece: int = 30_000
    fail_after: int | None = None
    damage: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    sent: int = 0
    patches: Mapping[tuple[str, Digest], Patch] = field(default_factory=dict)
    patch_memory_bytes: int = 4 << 20

    async def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        data = self.files[url].read_bytes()
        self.asked += [(start, length) for start, length in ranges]
        for start, length in ranges:
            for offset in range(start, start + length, self.piece):
                if self.fail_after is not None and self.sent >= self.fail_after:
                    raise UnreachableError("the gateway went away")
                part = data[offset : min(offset + self.piece, start + length)]
                self.sent += len(part)
                yield offset, bytes(len(part)) if self.damage else part

    async def find_patch(self, url: str, base: Digest) -> PatchOffer | None:
        patch = self.patches.get((url, base))
        return None if patch is None else patch.offer

    async def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        patch = self.patches[url, base]
        assert offer == patch.offer
        for offset in range(0, len(patch.data), self.piece):
            yield patch.data[offset : offset + self.piece]
        if patch.breaks is not None:
            raise patch.breaks


class Power(Protocol):
    """The power switch of a device, and its bootloader behind it."""

    def decides(self) -> bytes:
        """Whatever decides what the next start brings."""
        ...

    def power_on(self) -> str:
        """Start the device; returns the slot that came up."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """One device on a board. `slot_files` are what no other slot's write may touch."""

    driver: Driver
    board: Power
    folder: Path
    slot_files: Mapping[str, tuple[Path, ...]]

    def content(self, slot: str) -> str:
        """One hash over everything that belongs to `slot`."""
        files = [path.read_bytes() if path.exists() else b"-" for path in self.slot_files[slot]]
        return hashlib.sha256(b"".join(files)).hexdigest()


class DeviceMaker(Protocol):
    def __call__(self, folder: Path, disk: Disk | None = None) -> Device: ...


def slot_path(folder: Path, slot: str, part: str) -> Path:
    return folder / f"{slot}-{part}.img"


def linux_config(folder: Path, *, required: bool = True) -> LinuxConfig:
    slots = []
    for slot, mode in (("a", "copy1"), ("b", "copy2")):
        parts = [PartConfig(part, f"/dev/{part}_{slot}", slot_path(folder, slot, part), required) for part in ("kernel", "root")]
        slots.append(SlotConfig(slot, f"stable,{mode}", tuple(parts)))
    return LinuxConfig(tuple(slots))


def linux_device(folder: Path, disk: Disk | None = None, make_board: BoardMaker = simulated_board) -> Device:
    """Slot a holds version 1 of kernel and root, slot b nothing."""
    disk = disk or Disk()
    board = make_board(folder, disk=disk)
    for slot in ("a", "b"):
        for part, content in (("kernel", make_kernel(1)), ("root", make_root(1))):
            filled = content if slot == "a" else b""
            slot_path(folder, slot, part).write_bytes(filled + b"\xff" * (CAPACITY - len(filled)))
    driver = LinuxDriver(linux_config(folder), Surroundings(disk, folder / "state", DEMO, board.bootloader))
    board.power_on()
    files = {slot: (slot_path(folder, slot, "kernel"), slot_path(folder, slot, "root")) for slot in ("a", "b")}
    return Device(driver, board, folder, files)


def linux_uboot_device(folder: Path, disk: Disk | None = None) -> Device:
    return linux_device(folder, disk, uboot_board)


def simulated_device(folder: Path, disk: Disk | None = None) -> Device:
    disk = disk or Disk()
    board = simulated_board(folder, disk=disk)
    config = SimulatedConfig(selections=("stable,copy1", "stable,copy2"))
    driver = SimulatedDriver(config, Surroundings(disk, folder / "state", DEMO, board.bootloader))
    board.power_on()
    return Device(driver, board, folder, {slot: (folder / "state/slots" / f"slot-{slot}.json",) for slot in ("a", "b")})


@dataclass(frozen=True, slots=True)
class Release:
    """A verified bundle for both slots, what its chunks come from, and what the parts hold afterwards."""

    bundle: AnyBundle
    chunks: FileChunks
    root: bytes
    kernel: bytes


def make_release(
    folder: Path,
    version: int,
    *,
    compressed: str = "",
    delta: bool = True,
    scripts: Mapping[str, bytes] | None = None,
    bootenv: Sequence[Mapping[str, object]] = (),
    root: bytes | None = None,
    **attributes: object,
) -> Release:
    """Kernel as a raw image (compressed or not) and root as a delta or raw; `attributes` go to the root's entries."""
    root, kernel = root if root is not None else make_root(version), make_kernel(version)
    plain, zck = folder / f"root-{version}.img", folder / f"root-{version}.zck"
    plain.write_bytes(root)
    write_zchunk(plain, zck, Disk())
    stored = {"kernel.img": _compress(kernel, compressed), "root.img": zck_header(zck) if delta else _compress(root, compressed)}
    named = {"compressed": compressed} if compressed else {}

    def images(own: str, other: str) -> list[Mapping[str, object]]:
        properties = {"url": URL, "source": f"/dev/root_{other}", "chain": "raw", "max-ranges": "10"}
        kind = {"type": "delta", "properties": properties} if delta else {"type": "raw", **named}
        return [
            image("kernel.img", stored["kernel.img"], device=f"/dev/kernel_{own}", type="raw", **named),
            image("root.img", stored["root.img"], device=f"/dev/root_{own}", **kind, **attributes),
        ]

    entries = [script(name, text) for name, text in (scripts or {}).items()]
    sections = {**({"scripts": entries} if entries else {}), **({"bootenv": list(bootenv)} if bootenv else {})}
    stable = {"copy1": {"images": images("a", "b"), **sections}, "copy2": {"images": images("b", "a"), **sections}}
    members = {**stored, **(scripts or {})}
    file = signed(folder, describe(version=f"{version}.0", stable=stable), members, name=f"release-{version}.swu")
    return Release(verified(file), FileChunks({URL: zck}), root, kernel)


def quiet(_done: int, _total: int) -> None:
    """Progress nobody looks at."""


def _compress(data: bytes, kind: str) -> bytes:
    match kind:
        case "zlib":
            return gzip.compress(data, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor().compress(data)
    return data
