"""`ONLY=stick`: how fast a stick is taken in, beside `cp` and `sha256sum` of the same bytes, and how much memory that takes.

Two processes of ours take part, as on an appliance: the reader of the medium (a folder stands for it) and the whole gateway,
which verifies, syncs and publishes; they meet on a tmpfs, as is the default. The clock runs from the medium's being there to
"safe to remove". The peer copies to the same disk, without syncing, and then hashes the copy. Memory is the high-water mark of
both processes together, at two sizes: it must not grow with what is imported.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.measure import Row, Usage, run_child, tool
from tests.builders.hall import BOARD, Hall, make_hall

SIZES_MIB = (64, 512)
ROUNDS = 3
_GATEWAY = "import sys; from gateway.cli.main import main; sys.exit(main())"
_READER = """
import asyncio, sys, time
from pathlib import Path
from media.folder import FolderMedium
from media.importer import Importer, Visit
from media.intake import Intake
from update.durable import Disk
folder = Path(sys.argv[1])
begun = time.perf_counter()
visit = Visit(FolderMedium.at(folder / "stick"), "UPDATE", writable=False, now=time.time, clock=time.monotonic)
state = asyncio.run(Importer(visit, Intake(Disk(), Path(sys.argv[2]), "update-1"), lambda _state: None).run())
Path(sys.argv[3]).write_text(str(time.perf_counter() - begun))
sys.exit(0 if state.stage == "safe" else str(state))
"""


def rows(work: Path) -> Iterator[Row]:
    """Both sizes: throughput; then memory, the larger against the smaller."""
    peaks = []
    for size in SIZES_MIB:
        hall = asyncio.run(_hall(work / str(size), size))
        taken = [(_import(hall), _copy(hall)) for _ in range(ROUNDS + 1)][1:]
        ours, peer = (median(each[k].wall_s for each in taken) for k in (0, 1))
        cpu = median(each[0].cpu_s for each in taken)
        peaks.append(max(each[0].peak_rss_mib for each in taken))
        note = f"{size} MiB; reader {cpu:.2f} s of processor time; gateway and reader together {peaks[-1]:.0f} MiB at their peak"
        goal = 0.8 if size == SIZES_MIB[-1] else None
        yield Row("import-throughput", size / ours, size / peer, f"cp + sha256sum, {size} MiB", "MiB/s", goal, True, note)
    yield Row("import-peak-memory", peaks[1], peaks[0], f"the same at {SIZES_MIB[0]} MiB", "MiB", 1.2)


async def _hall(folder: Path, size_mib: int) -> Hall:
    folder.mkdir(parents=True)
    hall = await make_hall(folder)
    block = bytes(range(256)) * 4096
    content = b"".join(number.to_bytes(8, "big") + block[8:] for number in range(size_mib))
    hall.builder.add_target("os/image.bin", content, BOARD)
    hall.write_stick()
    text = (folder / "gateway.toml").read_text().replace("hosts = []", 'hosts = []\naddresses = ["127.0.0.1"]')
    text += f"\n[media]\nenabled = true\ninstall = false\nintake = {json.dumps(str(_meeting(folder)))}\n"
    (folder / "gateway.toml").write_text(text)
    (folder / "state").rename(folder / "state.fresh")
    return hall


def _meeting(folder: Path) -> Path:
    """Where reader and gateway meet: on a tmpfs where there is one."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own below it
    return (memory if memory.is_dir() else folder) / f"fieldrelay-bench-{os.getpid()}"


def _import(hall: Hall) -> Usage:
    """One stick into an empty gateway."""
    meeting, elapsed = _meeting(hall.folder), hall.folder / "elapsed"
    shutil.rmtree(meeting, ignore_errors=True)
    shutil.rmtree(hall.folder / "state", ignore_errors=True)
    shutil.copytree(hall.folder / "state.fresh", hall.folder / "state")
    with _gateway(hall, meeting) as gateway:
        subprocess.run(["sync"], check=True)
        used = run_child([sys.executable, "-c", _READER, hall.folder, meeting, elapsed])
        lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    shutil.rmtree(meeting)
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    return Usage(float(elapsed.read_text()), used.cpu_s, used.peak_rss_mib + peak)


@contextmanager
def _gateway(hall: Hall, meeting: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that is ready, ended with the block."""
    command = [sys.executable, "-c", _GATEWAY, "gateway", "--config", str(hall.folder / "gateway.toml"), "serve"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not meeting.is_dir() or not (hall.folder / "s").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("benchmark: the gateway does not start")
                time.sleep(0.05)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _copy(hall: Hall) -> Usage:
    (source,) = (hall.folder / "stick" / "targets" / "os").iterdir()
    copy = hall.folder / "copy"
    copy.unlink(missing_ok=True)
    subprocess.run(["sync"], check=True)
    one, other = run_child([tool("cp"), source, copy]), run_child([tool("sha256sum"), copy])
    return Usage(one.wall_s + other.wall_s, one.cpu_s + other.cpu_s, max(one.peak_rss_mib, other.peak_rss_mib))
