"""`ONLY=formats`: indexing, making and unpacking .zck files against zchunk's own tools, on one ext4 image of libraries.

Run with a verb it is the measured side: `python -m tests.benchmarks.formats index|create|unpack FILE...`.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Row, Usage, interleave, run_child, tool
from tests.builders.libraries import library_ext4
from update.chunks.chunker import file_reader, index_image
from update.chunks.unpack import unpack
from update.durable import Disk
from update.publish.images import write_zchunk

CONTENT_BYTES = 200 << 20
_DELTA_OPTIONS = ("-u", "--chunk-hash-type", "sha256")


def rows(work: Path) -> Iterator[Row]:
    """Every comparison of this group; `work` is an empty folder for images."""
    image = library_ext4(work / "image", CONTENT_BYTES, tool("mkfs.ext4"))
    file, plain = work / "theirs.zck", work / "plain.zck"
    zck, name = tool("zck"), _version()
    ours, peer = interleave(
        lambda: _ours("index", image),
        lambda: run_child([zck, *_DELTA_OPTIONS, "--compression-format", "none", "-o", plain, image]),
        rounds=5,
    )
    yield Row("zck-index-cpu", ours.cpu_s, peer.cpu_s, f"{name} -u --compression-format none", "s", goal=0.4)
    yield Row("zck-index-wall", ours.wall_s, peer.wall_s, f"{name} -u --compression-format none", "s")
    yield Row("zck-index-peak-rss", ours.peak_rss_mib, peer.peak_rss_mib, f"{name} -u --compression-format none", "MiB")
    ours, peer = interleave(
        lambda: _ours("create", image, work / "ours.zck"),
        lambda: run_child([zck, *_DELTA_OPTIONS, "-o", file, image]),
        rounds=3,
    )
    yield Row("zck-create-cpu", ours.cpu_s, peer.cpu_s, f"{name} -u", "s")
    yield Row("zck-create-wall", ours.wall_s, peer.wall_s, f"{name} -u", "s")
    yield Row("zck-create-peak-rss", ours.peak_rss_mib, peer.peak_rss_mib, f"{name} -u", "MiB")
    ours, peer = interleave(lambda: _ours("unpack", file), lambda: run_child([tool("unzck"), "-c", file]), rounds=7)
    yield Row("unzck-wall", ours.wall_s, peer.wall_s, f"un{name} -c", "s")
    yield Row("unzck-cpu", ours.cpu_s, peer.cpu_s, f"un{name} -c", "s")
    yield Row("unzck-peak-rss", ours.peak_rss_mib, peer.peak_rss_mib, f"un{name} -c", "MiB")


def _ours(*arguments: str | Path) -> Usage:
    return run_child([sys.executable, "-m", "tests.benchmarks.formats", *arguments])


def _version() -> str:
    """`zck` and its version, as the rows name the peer."""
    library = next(iter(sorted(Path("/usr/lib").glob("*/libzck.so.*.*.*"))), None)
    return f"zck {library.name.removeprefix('libzck.so.')}" if library else "zck"


def _child(verb: str, *files: str) -> None:
    """One measured run of ours."""
    match verb:
        case "index":
            with Path(files[0]).open("rb") as image:
                for _ in index_image(file_reader(image.fileno()), os.fstat(image.fileno()).st_size):
                    pass
        case "create":
            write_zchunk(Path(files[0]), Path(files[1]), Disk())
        case "unpack":
            with Path(files[0]).open("rb") as file, Path(os.devnull).open("wb") as out:
                for _, data in unpack(file):
                    out.write(data)
        case _:
            sys.exit(f"unknown verb {verb!r}: index, create or unpack")


if __name__ == "__main__":
    _child(*sys.argv[1:])
