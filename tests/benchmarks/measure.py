"""Times child processes side by side: wall clock, processor time and peak memory, in interleaved rounds.

The peak is the child's own high-water mark (VmHWM), sampled while it runs: getrusage would count the memory of the
process that started it. The mark only rises, so the last sample misses at most what was added in the last moments.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_SAMPLE_S = 0.01
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run cost."""

    wall_s: float
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; `ratio` is ours / peer.

    Printed and not stored: `goal`, the highest ratio wanted, or with `at_least` the lowest; `note`, what explains the figures.
    """

    work: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    goal: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def reached(self) -> bool:
        """Whether the ratio is as good as the goal."""
        return self.goal is None or (self.ratio >= self.goal if self.at_least else self.ratio <= self.goal)

    def as_json(self) -> dict[str, str | float]:
        """The row as benchmark files keep it."""
        return {
            "work": self.work,
            "ours": round(self.ours, 4),
            "peer": round(self.peer, 4),
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio": round(self.ratio, 4),
        }


def tool(name: str) -> str:
    """Path of a peer; ends the benchmark with the reason where it is absent."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        sys.exit(f"benchmark: the peer {name!r} is not installed")
    return found


def absent(name: str, package: str) -> bool:
    """Whether a peer that is no part of the tested set is not installed; says so, since its rows are missing then."""
    if shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])):
        return False
    print(f"no row for {name}: it is not installed (Debian package {package})", flush=True)
    return True


def run_child(
    command: Sequence[str | Path], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Usage:
    """Run one child to its end, its output thrown away; `CalledProcessError` if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )
        try:
            peak, status, cpu = _watch(process.pid, started + _TIMEOUT_S)
        except TimeoutError:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        complaints.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, [*map(str, command)], stderr=complaints.read()[-2000:])
    return Usage(wall, cpu, peak / 1024)


def _watch(pid: int, deadline: float) -> tuple[int, int, float]:
    """Peak memory in KiB, wait status and processor seconds of the child."""
    peak = 0
    while time.perf_counter() < deadline:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return peak, status, used.ru_utime + used.ru_stime
        peak = max(peak, _high_water_kib(pid))
        time.sleep(_SAMPLE_S)
    raise TimeoutError(f"a child ran for more than {_TIMEOUT_S:.0f} s")


def _high_water_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines() if line.startswith("VmHWM:"))
    return next((int(line[1]) for line in lines), 0)


def interleave(ours: Callable[[], Usage], peer: Callable[[], Usage], *, rounds: int) -> tuple[Usage, Usage]:
    """The medians of both after one unmeasured run of each, run by turns so that both see the same machine."""
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return _median(pair[0] for pair in pairs), _median(pair[1] for pair in pairs)


def _median(usages: Iterable[Usage]) -> Usage:
    taken = list(usages)
    return Usage(
        median(usage.wall_s for usage in taken),
        median(usage.cpu_s for usage in taken),
        median(usage.peak_rss_mib for usage in taken),
    )
