"""A flash chip of which regions are read and written: the Protocol, and a chip that is a plain file.

`FileFlash` does to its file what a programmer does to a chip: block by block, first erased (all ones), then written. So a process
that is killed leaves it as torn as a chip would be.
"""

import asyncio
from pathlib import Path
from typing import Final, Protocol

from node_agent.drivers.fpga.layout import Layout, Region
from update.digest import digest_of
from update.durable import Disk
from update.errors import FlashError, ReadBackError

ERASED: Final = b"\xff"
_BLOCK_BYTES: Final = 4096


class Flash(Protocol):
    """One chip. Errors of every word: `FlashError`."""

    async def check(self, layout: Layout) -> None:
        """Whether the chip answers, and `layout` fits on it. Touches nothing."""
        ...

    async def read(self, region: Region) -> bytes:
        """All of a region."""
        ...

    async def write(self, region: Region, content: bytes) -> None:
        """Have `region` hold `content`, which fills it, and read it back; no other region changes.

        What holds it already is not written; after an interruption it is done again. Errors besides: `ReadBackError`.
        """
        ...


class FileFlash:
    """A chip that is a file: a simulated one, or the image of a flash."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    async def check(self, layout: Layout) -> None:
        """The file is there, and large enough."""
        try:
            size = await asyncio.to_thread(lambda: self._path.stat().st_size)
        except OSError as error:
            raise FlashError(f"cannot read the chip {self._path}: {error.strerror or error}") from error
        if size < layout.end:
            raise FlashError(
                f"the chip {self._path} has {size} bytes, and the layout ends at {layout.end}; it is of another chip"
            )

    async def read(self, region: Region) -> bytes:
        """From the file."""
        return await asyncio.to_thread(self._read, region)

    async def write(self, region: Region, content: bytes) -> None:
        """Erase and write each block that differs."""
        await asyncio.to_thread(self._write, region, content)

    def _read(self, region: Region) -> bytes:
        with self._disk.open_device(self._path) as file:
            return file.read_at(region.start, region.size)

    def _write(self, region: Region, content: bytes) -> None:
        with self._disk.open_device(self._path) as file:
            for offset in range(0, region.size, _BLOCK_BYTES):
                block, place = content[offset : offset + _BLOCK_BYTES], region.start + offset
                if file.read_at(place, len(block)) != block:
                    file.write_at(place, ERASED * len(block))
                    file.write_at(place, block)
                    file.sync()
        require_same(region, content, self._read(region))


def filled(content: bytes, region: Region) -> bytes:
    """`content` with erased flash after it, up to the end of `region`. `FlashError` for more than fits."""
    if len(content) > region.size:
        raise FlashError(f"a bitstream of {len(content)} bytes does not fit into region {region} of {region.size} bytes")
    return content.ljust(region.size, ERASED)


def require_same(region: Region, wrote: bytes, found: bytes) -> None:
    """`ReadBackError` for a region that does not hold what was written into it."""
    if wrote != found:
        raise ReadBackError(
            f"region {region}: wrote sha256 {digest_of(wrote)}, read back {digest_of(found)}; the chip is failing, or protected"
        )
