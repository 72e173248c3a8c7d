"""A mounter over one block device that stands for a stick; needs CAP_SYS_ADMIN: `python -m tests.media.mounting NODE SOCKET`.

It prints `READY`, then whether anything is mounted whenever a line comes, and ends with its input. `gone` beside the socket says
that the stick was pulled out.
"""

import asyncio
import os
import sys
from pathlib import Path

from media.config import AllowSection, MediaConfig, MediaSection
from media.mount import Kernel, Owner
from media.mounter import Eyes, Mounter
from media.policy import Device
from media.udev import probe_node
from tests.media.eventually import lines


def eyes_for(node: Path, gone: Path) -> Eyes:
    def look(name: str) -> Device | None:
        if name != "stick" or gone.exists():
            return None
        return Device(name, str(node), bus="usb", filesystem=probe_node(str(node)).filesystem, interfaces=("08",))

    return Eyes(look, probe_node, lambda _device: not gone.exists())


async def main(node: Path, where: Path, user: int) -> None:
    kernel = Kernel()
    kernel.separate()
    folder = where.parent / "mounts"
    folder.mkdir()
    allow = AllowSection(write_reports=True, key_file=where.parent / "key")
    config = MediaConfig(format_version=1, media=MediaSection(socket=where), allow=(allow,))
    stop = asyncio.Event()
    mounter = Mounter(config, eyes_for(node, where.parent / "gone"), kernel, Owner(user, user), folder)
    running = asyncio.create_task(mounter.run(stop))
    while not where.exists():  # noqa: ASYNC110 - it is made by the other task
        await asyncio.sleep(0.01)
    print("READY", flush=True)
    async for _ in lines(sys.stdin):
        print("MOUNTED" if str(folder) in Path("/proc/self/mounts").read_text() else "NOTHING", flush=True)
    stop.set()
    await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else os.getuid()))
