"""Realistic images of any size: file systems and archives of this machine's own libraries, in a fixed order."""

import os
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

_MIB = 1 << 20


def library_files(limit: int) -> Iterator[Path]:
    """Files of the interpreter's libraries, then of the system's, about `limit` bytes of them."""
    taken = 0
    roots = [Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"]), Path("/usr/lib")]
    for path in (path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()):
        size = path.stat().st_size
        if not os.access(path, os.R_OK) or not size:
            continue
        if taken + size > limit:
            return
        taken += size
        yield path


def library_tar(out: Path, limit: int) -> Path:
    """An uncompressed archive."""
    with tarfile.open(out, "w") as archive:
        for path in library_files(limit):
            archive.add(path)
    return out


def library_ext4(out: Path, limit: int, mkfs: str) -> Path:
    """An ext4 image a quarter larger than its content; `mkfs` is the path of mkfs.ext4."""
    tree = out.with_name(f"{out.name}.tree")
    for number, path in enumerate(library_files(limit)):
        folder = tree / str(number // 200)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    with out.open("wb") as file:
        file.truncate(limit * 5 // 4 + 8 * _MIB)
    subprocess.run([mkfs, "-q", "-F", "-d", tree, out], check=True, capture_output=True)
    return out
