"""`ONLY=node`: installing one signed delta bundle against swupdate's own delta handler, from the same server.

Both get the same bundle, the same old image and the same target full of ones, and the content decides whether a run
counts: swupdate's exit status does not (it has ended with 1 after a success). Held index: our state keeps the header of
what runs. Cold: it does not, and the old image is cut into chunks again.

Run with a verb it is the measured side: `python -m tests.benchmarks.node with-numpy|without-numpy FOLDER BUNDLE ANCHORS`.
"""

import asyncio
import hashlib
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import node_agent.assembly  # noqa: F401  # the whole agent is loaded, as it is when it installs
from node_agent.bootloaders.simulated import SimulatedEnvironment
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.linux import LinuxConfig, LinuxDriver
from node_agent.drivers.registry import make_bootloader
from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from node_agent.drivers.slots.records import SlotRecords
from tests.benchmarks.measure import Row, Usage, interleave, run_child, tool
from tests.builders.bundles import DEMO, describe, image, signed
from tests.builders.keys import NOW, make_pki
from tests.builders.libraries import library_ext4
from tests.interop.range_server import RangeServer
from update.bundle.cms import CmsPolicy
from update.bundle.reader import verify_bundle
from update.chunks.chunker import cut_image, file_reader
from update.chunks.fields import Compression
from update.chunks.header import HeaderBuilder
from update.chunks.pair import PatchOffer
from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import Digest, digest_file
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header
from update.trust.chain import split_anchors
from update.wire.ranged import read_ranges
from update.wire.session import wan_session

_MIB = 1 << 20
CONTENT_BYTES = 200 * _MIB
LARGE_BYTES = 1024 * _MIB
_EDITS = 60
_PEER = "swupdate 2022.12 delta handler"
_MAX_TRIES = 8
_SELECTION = "stable,copy2"
_PATH = "/targets/new.zck"
_MEASURED = (sys.executable, "-m", "tests.benchmarks.node")


@dataclass(frozen=True, slots=True)
class Update:
    """An old image in slot a, a bundle that brings slot b to the new one, and what slot b must hold afterwards."""

    folder: Path
    old: Path
    target: Path
    bundle: Path
    expected: Digest
    held: HeaderIndex

    def prepare(self, *, held: bool) -> None:
        """The device as before the update: nothing is remembered but, if `held`, the index of what runs."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        SimulatedEnvironment(self.folder / "environment", Disk()).seed()
        (self.folder / "cmdline").write_text("fieldrelay.slot=a\n")
        if held:
            SlotRecords(Disk(), self.folder / "state" / "slots").keep_header("a", "root", self.held)
        with self.target.open("wb") as file:
            for _ in range(-(-self.old.stat().st_size // _MIB)):
                file.write(b"\xff" * _MIB)
            file.truncate(self.old.stat().st_size)

    def is_done(self) -> bool:
        return digest_file(self.target)[0] == self.expected


def rows(work: Path) -> Iterator[Row]:
    """Every comparison of this group."""
    with ExitStack() as served:
        update = _library_update(work / "library", served)
        anchors = make_pki().write(work / "pki").anchors
        yield from _delta_rows(update, anchors)
        for name, verb, rounds in (("", "with-numpy", 3), ("-without-numpy", "without-numpy", 1)):
            ours = [_ours(update, anchors, verb, held=False) for _ in range(rounds)]
            peer = [_swupdate(update, anchors) for _ in range(rounds)]
            yield Row(f"delta-update-cold-wall{name}", _wall(ours), _wall(peer), _PEER, "s")
            yield Row(
                f"delta-update-cold-cpu{name}", median(run.cpu_s for run in ours), median(run.cpu_s for run in peer), _PEER, "s"
            )
    shutil.rmtree(update.folder)
    with ExitStack() as served:
        large = _large_update(work / "large", served)
        held, cold = (_ours(large, anchors, "with-numpy", held=each) for each in (True, False))
        theirs = _swupdate(large, anchors)
        yield Row("install-peak-rss-mib", held.peak_rss_mib, theirs.peak_rss_mib, f"{_PEER}, 1 GiB image", "MiB")
        yield Row("install-cold-peak-rss-mib", cold.peak_rss_mib, theirs.peak_rss_mib, f"{_PEER}, 1 GiB image", "MiB")


def _delta_rows(update: Update, anchors: Path) -> Iterator[Row]:
    ours, peer = interleave(lambda: _ours(update, anchors, "with-numpy", held=True), lambda: _swupdate(update, anchors), rounds=5)
    yield Row("delta-update-wall", ours.wall_s, peer.wall_s, _PEER, "s", goal=0.4)
    yield Row("delta-update-cpu", ours.cpu_s, peer.cpu_s, _PEER, "s", goal=0.4)


def _wall(runs: Sequence[Usage]) -> float:
    return median(run.wall_s for run in runs)


def _ours(update: Update, anchors: Path, verb: str, *, held: bool) -> Usage:
    return _counted(update, lambda: run_child([*_MEASURED, verb, update.folder, update.bundle, anchors]), held=held)


def _swupdate(update: Update, anchors: Path) -> Usage:
    temporary = update.folder / "swupdate"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    command: list[str | Path] = [tool("swupdate"), "-B", "none", "-k", anchors, "--cert-purpose", "codeSigning", "-H", str(DEMO)]
    command += ["-e", _SELECTION, "-i", update.bundle]
    return _counted(update, lambda: run_child(command, environment={"TMPDIR": str(temporary)}), held=False)


def _counted(update: Update, run: Callable[[], Usage], *, held: bool) -> Usage:
    """One run that did its work; others are repeated."""
    complaint = b""
    for _ in range(_MAX_TRIES):
        update.prepare(held=held)
        try:
            usage = run()
        except subprocess.CalledProcessError as error:
            complaint = bytes(error.stderr)
            continue
        if update.is_done():
            return usage
        complaint = b"ended well without the right content"
    sys.exit(f"benchmark: no run of {_MAX_TRIES} did its work; the last one said: {complaint.decode(errors='replace')}")


def _library_update(folder: Path, served: ExitStack) -> Update:
    """An ext4 image of libraries, and the same with extents replaced by others of its own kind."""
    folder.mkdir()
    old = library_ext4(folder / "old.img", CONTENT_BYTES, tool("mkfs.ext4"))
    draw, new = random.Random(7), bytearray(old.read_bytes())
    for _ in range(_EDITS):
        size = draw.randrange(4, 64) * 4096
        start, source = (draw.randrange(CONTENT_BYTES // 4096) * 4096 for _ in range(2))
        new[start : start + size] = bytes(byte ^ 0x5A for byte in new[source : source + size])
    return _make_update(folder, old, bytes(new), served)


def _large_update(folder: Path, served: ExitStack) -> Update:
    """1 GiB without repetition, of which a quarter is new: the most chunks that an image of this size can have."""
    folder.mkdir()
    draw, old = random.Random(8), folder / "old.img"
    new = bytearray()
    with old.open("wb") as file:
        for number in range(LARGE_BYTES // _MIB):
            block = draw.randbytes(_MIB)
            file.write(block)
            new += block if number % 4 else draw.randbytes(_MIB)
    return _make_update(folder, old, bytes(new), served)


def _make_update(folder: Path, old: Path, new: bytes, served: ExitStack) -> Update:
    plain, zck, target = folder / "new.img", folder / "new.zck", folder / "target.img"
    plain.write_bytes(new)
    write_zchunk(plain, zck, Disk())
    listening = served.enter_context(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}{_PATH}"
    served.enter_context(RangeServer({_PATH: zck.read_bytes()})(listening))
    header = zck_header(zck)
    properties = {"url": url, "source": str(old), "chain": "raw", "zckloglevel": "none"}
    entry = image("root.zck", header, device=str(target), type="delta", properties=properties)
    bundle = signed(folder, describe(stable={"copy2": {"images": [entry]}}), {"root.zck": header})
    plain.unlink()
    return Update(folder, old, target, bundle, Digest(hashlib.sha256(new).hexdigest()), _index_of(old))


def _index_of(image_file: Path) -> HeaderIndex:
    """The header that an installation of this image would have left behind."""
    builder = HeaderBuilder(Compression.NONE)
    with image_file.open("rb") as file:
        for _, data in cut_image(file_reader(file.fileno()), image_file.stat().st_size):
            digest = hashlib.sha256(data).digest()
            builder.add(compressed_digest=digest, digest=digest, length=len(data), size=len(data))
    return parse_header(builder.build())


class _Chunks:
    """`ChunkSource` straight from the server."""

    async def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        async with wan_session() as session:
            async for piece in read_ranges(session, url, ranges):
                yield piece

    async def find_patch(self, _url: str, _base: Digest) -> None:
        """It has none."""

    def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        raise AssertionError(f"{url} {base} {offer}: no patch was offered")

    @property
    def patch_memory_bytes(self) -> int:
        return 0


async def _install(folder: Path, bundle: Path, anchors: Path) -> None:
    """What the agent does between the download of a bundle and the switch: verify all of it, write, read back."""
    options = {"environment": "environment", "command_line": {"path": "cmdline"}}
    bootloader = make_bootloader("simulated", options, folder, Disk())
    parts = {
        slot: PartConfig("root", str(folder / name), folder / name) for slot, name in (("a", "old.img"), ("b", "target.img"))
    }
    config = LinuxConfig((SlotConfig("a", "stable,copy1", (parts["a"],)), SlotConfig("b", _SELECTION, (parts["b"],))))
    driver = LinuxDriver(config, Surroundings(Disk(), folder / "state", DEMO, bootloader))
    roots, intermediates = split_anchors(anchors.read_bytes())
    policy = CmsPolicy(roots, NOW, intermediates)
    await driver.write(verify_bundle(bundle, policy), _Chunks(), lambda _done, _total: None)


def _child(verb: str, *files: str) -> None:
    """One measured run of ours."""
    if verb == "without-numpy":
        sys.modules["numpy"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    folder, bundle, anchors = map(Path, files)
    asyncio.run(_install(folder, bundle, anchors))


if __name__ == "__main__":
    _child(*sys.argv[1:])
