"""Part of `ONLY=relay`: what a small update costs by pair patch, beside everything else that knows of both images.

An ext4 image of libraries, and the same with the files of every sixtieth group edited as a rebuild edits them: some bytes
in, some out, every few thousand. Ours is the patch a gateway would offer; it is applied, and compared with the image.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Row, tool
from tests.builders.libraries import library_ext4
from tests.update.chunks.edits import edited
from update.chunks.chunker import file_reader
from update.chunks.patch import apply_patch
from update.chunks.patch_build import Image, create_patch
from update.chunks.plan import Source, plan_delta
from update.durable import Disk
from update.publish.images import write_zchunk

CONTENT_BYTES = 96 << 20
GOAL = 1.6
_IDENTITY = "5f3e4c1e-0000-4000-8000-000000000001"


def rows(work: Path) -> Iterator[Row]:
    """The row with the goal first, then the others."""
    old, new = _images(work)
    disk, patch = Disk(), work / "patch"
    old_index, new_index = (write_zchunk(image, image.with_suffix(".zck"), disk) for image in (old, new))
    with old.open("rb") as old_file, new.open("rb") as new_file:
        old_read, new_read = file_reader(old_file.fileno()), file_reader(new_file.fileno())
        ours = create_patch(Image(old_index, old_read), Image(new_index, new_read), patch, disk)
        result = work / "result"
        with patch.open("rb") as stream, result.open("wb") as file:
            apply_patch(stream, old_read, old_index.image_size, file.write, size=new_index.image_size)
    _run("cmp", result, new)
    plan = plan_delta(new_index, Source.of_index(old_index))
    yield _row(ours, _xdelta3(work, old, new), "xdelta3", GOAL)
    yield _row(ours, _patch_from(work, old, new), "zstd -9 --patch-from, the old image in memory")
    yield _row(ours, plan.fetch_bytes + new_index.header_size, "zchunk: missing chunks and header")
    yield _row(ours, _rdiff(work, old, new), "rdiff and zstd -9, without the signature")
    yield _row(ours, _casync(work, old, new), "casync: missing chunks and index")


def _row(ours: int, peer: int, name: str, goal: float | None = None) -> Row:
    return Row("pair-patch-bytes", ours, peer, name, "B", goal)


def _run(name: str, *arguments: str | Path) -> None:
    subprocess.run([tool(name), *arguments], check=True, capture_output=True)


def _images(work: Path) -> tuple[Path, Path]:
    old, new = work / "old.img", work / "new.img"
    library_ext4(old, CONTENT_BYTES, tool("mkfs.ext4"))
    tree, size = old.with_name(f"{old.name}.tree"), old.stat().st_size
    _format(old, tree, size)
    for path in tree.rglob("*"):
        if path.is_file() and int(path.stem) // 15 % 60 == 7:
            data = path.read_bytes()
            path.write_bytes(edited(data, int(path.stem), max(2, len(data) // 4000), longest=60))
    _format(new, tree, size)
    return old, new


def _format(image: Path, tree: Path, size: int) -> None:
    """A file system of one identity: two builds of one image differ in their files only."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-U", _IDENTITY, "-E", f"hash_seed={_IDENTITY}", "-d", tree, image)


def _xdelta3(work: Path, old: Path, new: Path) -> int:
    out = work / "delta.xd"
    _run("xdelta3", "-B", str(512 << 20), "-e", "-s", old, new, out)
    return out.stat().st_size


def _patch_from(work: Path, old: Path, new: Path) -> int:
    out = work / "delta.zst"
    _run("zstd", "-q", "-9", "--long=29", f"--patch-from={old}", new, "-o", out)
    return out.stat().st_size


def _rdiff(work: Path, old: Path, new: Path) -> int:
    signature, delta, out = work / "signature", work / "delta", work / "delta.packed"
    _run("rdiff", "signature", old, signature)
    _run("rdiff", "delta", signature, new, delta)
    _run("zstd", "-q", "-9", delta, "-o", out)
    return out.stat().st_size


def _casync(work: Path, old: Path, new: Path) -> int:
    stores = {}
    for image in (old, new):
        store = work / f"{image.stem}.castr"
        _run("casync", "make", f"--store={store}", image.with_suffix(".caibx"), image)
        stores[image] = {path.name: path.stat().st_size for path in store.rglob("*.cacnk")}
    missing = (size for name, size in stores[new].items() if name not in stores[old])
    return sum(missing) + new.with_suffix(".caibx").stat().st_size
