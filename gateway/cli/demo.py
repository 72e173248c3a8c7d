"""`fieldrelay demo`: the main job on this machine, on embedded defaults."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from gateway.demo.figures import OVERHEAD, Figures, StickFigures, write_json
from gateway.demo.line_figures import LineRun
from gateway.demo.scenario import Demo
from gateway.demo.screen import Screen
from gateway.words import size
from update.errors import MissingExtraError, NoSpaceError, StateError, StoreError

_FAILED = 1
_NEEDED_BYTES = 1_600_000_000
_MAX_FOLDER_BYTES = 76
"""Gateway and nodes have sockets below the folder, whose whole names have at most 107 bytes (unix(7))."""


@click.command("demo")
@click.option("--once", is_flag=True, help="End when everything was shown.")
@click.option("--json-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
@click.option("--lan", is_flag=True, help="Announce the gateway on the LAN instead of loopback only.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Work in this new folder and leave it there.")
def demo(*, once: bool, json_file: Path | None, lan: bool, keep: Path | None) -> int:
    """Build releases, publish them, run a gateway, four nodes and a line of devices, and update them."""
    if find_spec("smpclient") is None:
        raise MissingExtraError("the demo's motor speaks SMP, which needs fieldrelay[devices]: use `make demo`")
    interface, address = _lan() if lan else ("lo", "127.0.0.1")
    if keep is not None:
        if keep.exists():
            raise StateError(f"{keep} exists: name a folder that does not, the demo begins with nothing")
        _check_length(keep.absolute())
        keep.mkdir(parents=True)
        return _run(keep.absolute(), interface, address, json_file, stays=not once and sys.stdin.isatty())
    with tempfile.TemporaryDirectory(prefix="fieldrelay-demo-") as work:
        _check_length(Path(work))
        return _run(Path(work), interface, address, json_file, stays=not once and sys.stdin.isatty())


def _check_length(work: Path) -> None:
    length = len(os.fsencode(work))
    if length > _MAX_FOLDER_BYTES:
        raise StateError(
            f"{work} is too long for the sockets in it ({length} bytes, at most {_MAX_FOLDER_BYTES}): "
            "name a shorter folder with --keep or TMPDIR"
        )


def _run(work: Path, interface: str, address: str, json_file: Path | None, *, stays: bool) -> int:
    free = shutil.disk_usage(work).free
    if free < _NEEDED_BYTES:
        raise NoSpaceError(
            f"the demo needs {size(_NEEDED_BYTES)}, {work} has {size(free)} free: name another disk with --keep or TMPDIR"
        )
    try:
        return _show(work, interface, address, json_file, stays=stays)
    except OSError as error:
        raise StoreError(f"the demo cannot go on in {work}: {error}") from error


def _show(work: Path, interface: str, address: str, json_file: Path | None, *, stays: bool) -> int:
    with Screen() as screen:
        demo = Demo(work, screen, interface=interface, address=address)

        def shown(figures: Figures) -> None:
            if json_file is not None:
                write_json(figures, json_file)
            screen.say(_summary(figures, demo.problems))

        try:
            asyncio.run(_ended_by_sigterm(demo.run(shown, _until_interrupted if stays else None)))
        except asyncio.CancelledError as error:  # as Ctrl-C: processes and folder are gone by now
            raise KeyboardInterrupt from error
    return _FAILED if demo.problems else 0


async def _ended_by_sigterm(work: Coroutine[object, object, None]) -> None:
    """Do `work`; SIGTERM cancels it, so that it puts everything away."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


async def _until_interrupted() -> None:
    """Until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _summary(figures: Figures, problems: Sequence[str]) -> list[str]:
    whole = len(figures.nodes) * figures.zck_bytes
    lines = ["", f"{'node':<8}  {'from':<5} {'to':<5} {'result':<12} {'slot':<5} {'fetched':>10} {'reused':>10}"]
    for node in figures.nodes:
        fetched, reused = size(node.downloaded_bytes), size(node.reused_bytes)
        lines.append(
            f"{node.id:<8}  {node.start:<5} {node.wanted:<5} {node.result:<12} {node.slot:<5} {fetched:>10} {reused:>10}"
        )
    share = figures.chunk_bytes / figures.union_bytes
    lines += [
        "",
        (
            f"upstream sent {size(figures.chunk_bytes)} of images; {size(figures.union_bytes)} were needed "
            f"({share:.4f} times that, {OVERHEAD} is allowed)"
        ),
        f"whole images for every node would have been {size(whole)} ({figures.chunk_bytes / whole:.1%} of that travelled)",
        f"besides: {size(figures.metadata_bytes)} of metadata and bundles, {size(figures.repeated_bytes)} again after the kill",
        *(_stick_line(figures.stick) if figures.stick else []),
        *(line for run in figures.line for line in _line_run(run)),
        f"{figures.seconds} s, bootloader {figures.bootloader}",
        *(f"NOT AS PROMISED: {problem}" for problem in problems),
        "" if problems else "all of it is true",
    ]
    return lines


def _stick_line(stick: StickFigures) -> list[str]:
    nodes = ", ".join(stick.nodes)
    return [
        f"a stick brought {stick.version} ({size(stick.bytes)} read in {stick.safe_seconds} s) while upstream was gone: {nodes}"
    ]


def _line_run(run: LineRun) -> list[str]:
    """A release of the line: how it ended and why, and what was read of each device after its power was cut."""
    order = ", then ".join(" + ".join(step) for step in run.order)
    why = [f"  because {run.why}"] if run.why else []
    rows = [f"  {each.id:<8}  {each.driver:<11} says {each.says:<6} holds {each.sha256[:16]}…" for each in run.devices]
    return ["", f"line {run.release}: {run.ending} in {run.seconds} s ({order})", *why, *rows]


def _lan() -> tuple[str, str]:
    """The interface of the default route, and its address."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                probe.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737): nothing is sent, the kernel chooses
                return interface, str(probe.getsockname()[0])
    raise StateError("no interface has a default route: run the demo on loopback, without LAN=1")
