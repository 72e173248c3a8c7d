"""Pair patches beside what xdelta3, `zstd --patch-from` and zchunk need for the same update, and what a node needs for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.libraries import library_tar
from tests.peers import need_tool
from tests.update.chunks.edits import edited
from tests.update.chunks.indexed import indexed
from tests.update.chunks.test_patch_build import applied, patch_of
from update.chunks.chunker import file_reader
from update.chunks.patch import DEFAULT_MEMORY_BYTES
from update.chunks.patch_build import Image, create_patch
from update.chunks.plan import Source, plan_delta
from update.durable import Disk
from update.publish.images import write_zchunk

MIB = 1 << 20
APPLY = """
import os, sys
from update.chunks.chunker import file_reader
from update.chunks.patch import apply_patch

def peak() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

patch, old, out, size, memory = sys.argv[1:]
before = peak()
with open(patch, "rb") as stream, open(old, "rb") as base, open(out, "wb") as file:
    apply_patch(stream, file_reader(base.fileno()), os.path.getsize(old), file.write, size=int(size), memory_bytes=int(memory))
print(peak() - before)
"""


def images(folder: Path, size: int) -> tuple[Path, Path]:
    """An archive of libraries, and the same with some places changed."""
    old, new = library_tar(folder / "old", size), folder / "new"
    new.write_bytes(edited(old.read_bytes(), 11, 40, longest=3000))
    return old, new


def image_of(path: Path) -> Image:
    index = write_zchunk(path, path.with_name(f"{path.name}.zck"), Disk(), workers=1)
    return Image(index, lambda offset, size: _read(path, offset, size))


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        return file_reader(file.fileno())(offset, size)


@pytest.mark.interop
def test_a_small_update_is_not_much_larger_than_with_xdelta3(tmp_path: Path) -> None:
    old, new = images(tmp_path, 16 * MIB)
    delta, whole = tmp_path / "delta.xd", tmp_path / "delta.zst"
    subprocess.run([need_tool("xdelta3"), "-B", str(64 * MIB), "-e", "-s", old, new, delta], check=True)
    subprocess.run([need_tool("zstd"), "-q", "-9", "--long=27", f"--patch-from={old}", new, "-o", whole], check=True)
    old_image, new_image = image_of(old), image_of(new)
    ours = create_patch(old_image, new_image, tmp_path / "patch", Disk())
    plan = plan_delta(new_image.index, Source.of_index(old_image.index))
    sizes = {"xdelta3": delta.stat().st_size, "zstd --patch-from": whole.stat().st_size}
    print({"patch": ours, **sizes, "zchunk": plan.fetch_bytes + len(new_image.index.raw)})
    assert applied((tmp_path / "patch").read_bytes(), old_image, new_image, DEFAULT_MEMORY_BYTES) == new.read_bytes()
    assert ours <= 1.6 * sizes["xdelta3"]
    assert ours < plan.fetch_bytes


def test_a_node_takes_no_more_memory_than_it_allows(tmp_path: Path) -> None:
    memory = 16 * MIB
    old = library_tar(tmp_path / "old", 24 * MIB)
    data = old.read_bytes()
    new = edited(data, 5, 600, longest=9000)
    (tmp_path / "patch").write_bytes(patch_of(indexed(data), indexed(new), memory))
    arguments: list[str | Path] = [tmp_path / "patch", old, tmp_path / "new", str(len(new)), str(memory)]
    done = subprocess.run([sys.executable, "-c", APPLY, *arguments], check=True, capture_output=True, text=True)
    assert (tmp_path / "new").read_bytes() == new
    assert int(done.stdout) <= memory
