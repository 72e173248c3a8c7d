"""A flash chip behind any programmer that flashrom knows, by flashrom's command line (flashrom(8), 1.3).

- `-l LAYOUT -i REGION:FILE` reads or writes one region from a file of its size; `-r`, `-w` need a file of the whole chip besides.
- Without `-N` flashrom compares the whole chip after a write, so that a write that reached another region is noticed.
- Status 3: the verification failed. What it prints as its version is not parsed; distributions leave it empty.
- `--wp-status` prints `Protection range: start=0x… length=0x…` and `Protection mode: disabled | hardware | …`.
"""

import asyncio
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node_agent.drivers.fpga.flash import require_same
from node_agent.drivers.fpga.layout import Layout, Region
from node_agent.programs import Ended, run_program
from update.durable import Disk
from update.errors import FlashError, ReadBackError

_VERIFY_FAILED: Final = 3
_SIZE: Final = re.compile(r"^(\d+)\s*\Z", re.MULTILINE)
_RANGE: Final = re.compile(r"^Protection range: start=(0x[0-9a-fA-F]+) length=(0x[0-9a-fA-F]+)", re.MULTILINE)
_REMEDY: Final = "lock the golden region (flashrom --wp-region, --wp-enable), or set protected = false"
_MODE: Final = re.compile(r"^Protection mode: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Programmer:
    """How flashrom reaches the chip. `chip` names its model; `protected`: refuse unless it locks the golden region."""

    tool: str
    programmer: str
    chip: str
    timeout_s: float
    protected: bool


class Flashrom:
    """`Flash` by flashrom; `folder` is for the files that it reads and writes."""

    def __init__(self, programmer: Programmer, layout: Layout, folder: Path, disk: Disk) -> None:
        self._programmer = programmer
        self._layout = layout
        self._folder = folder
        self._disk = disk

    async def check(self, layout: Layout) -> None:
        """The tool is there, knows the chip, which is large enough, and the golden region is locked where that is demanded."""
        told = await self._run("find the chip", "--flash-size")
        found = _SIZE.search(told)
        if found is None:
            raise FlashError(f"flashrom does not say how large the chip is: {told[-300:]}")
        if int(found[1]) < layout.end:
            raise FlashError(f"the chip has {found[1]} bytes, and the layout ends at {layout.end}; it is of another chip")
        if self._programmer.protected:
            _require_protection(await self._run("read the write protection", "--wp-status"), layout.golden)

    async def read(self, region: Region) -> bytes:
        """By a file."""
        part, whole = await asyncio.to_thread(self._prepare)
        await self._run(f"read region {region}", *self._on(region, part), "-r", str(whole))
        return await asyncio.to_thread(part.read_bytes)

    async def write(self, region: Region, content: bytes) -> None:
        """Compare, write, have flashrom verify, and read back."""
        if await self.read(region) == content:
            return
        part, whole = self._folder / "region.bin", self._folder / "whole.bin"
        await asyncio.to_thread(part.write_bytes, content)
        await self._run(f"write region {region}", *self._on(region, part), "-w", str(whole))
        require_same(region, content, await self.read(region))

    def _prepare(self) -> tuple[Path, Path]:
        """Where files go; the layout is written out anew, as it was checked."""
        self._disk.make_folder(self._folder)
        (self._folder / "layout.txt").write_text(self._layout.text())
        part, whole = self._folder / "region.bin", self._folder / "whole.bin"
        part.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)
        return part, whole

    def _on(self, region: Region, part: Path) -> tuple[str, ...]:
        return "-l", str(self._folder / "layout.txt"), "-i", f"{region.name}:{part}"

    async def _run(self, what: str, *arguments: str) -> str:
        """What flashrom printed last."""
        programmer = self._programmer
        tool = shutil.which(programmer.tool)
        if tool is None:
            raise FlashError(f"{programmer.tool} is not installed, and nothing else reaches the chip; install flashrom")
        chip = ("-c", programmer.chip) if programmer.chip else ()
        command = (tool, "-p", programmer.programmer, *chip, *arguments)
        ended = await run_program(command, timeout_s=programmer.timeout_s, environment={"LC_ALL": "C"})
        if not ended.succeeded:
            raise _refusal(what, ended)
        return ended.output


def _refusal(what: str, ended: Ended) -> FlashError | ReadBackError:
    kind = ReadBackError if ended.status == _VERIFY_FAILED else FlashError
    return kind(f"flashrom could not {what}: {ended.describe()[-500:]}")


def _require_protection(told: str, golden: Region) -> None:
    found, mode = _RANGE.search(told), _MODE.search(told)
    if found is None or mode is None:
        raise FlashError(f"flashrom does not say which part of the chip is protected; {_REMEDY}")
    start, length = int(found[1], 16), int(found[2], 16)
    if mode[1].strip() == "disabled" or start > golden.start or start + length < golden.end:
        protects = f"the chip protects {length} bytes from {start:#x}, mode {mode[1].strip()}"
        raise FlashError(f"the golden region {golden} is not write-protected: {protects}; {_REMEDY}")
