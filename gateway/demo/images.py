"""Root file systems of the demo: real ext4 images of this machine's own libraries, in three versions.

Content: Python files and shared objects of the interpreter's library and of the virtual environment, in sorted order up
to `cap_bytes`. The later versions are made by seeded edits of the kind a release brings: a changed line in many sources,
changed bytes in a few libraries, a file more, a file less, a new version string. The same machine, seed and cap give the
same bytes: names, owners, times and UUIDs are fixed (mke2fs(8) `-d`, E2FSPROGS_FAKE_TIME; the change times, which mke2fs
takes from the source tree, are set by debugfs(8)).
"""

import os
import random
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from update.errors import StateError

_EPOCH_S = 1_700_000_000
_UUID = "6f1e1dc0-0000-4000-8000-00000000f1e1"
_SKIPPED = {"__pycache__", "site-packages", "test", "tests", "idlelib", "ensurepip", "turtledemo"}
_KEPT = {".py", ".so", ".pyi", ".typed", ".txt", ".json", ".pem"}
_TOOL_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_FREE_SHARE = 0.12
VERSIONS = ("1.0", "1.1", "1.2", "1.3")
"""Each a little later than the one before; the last comes by hand."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One version: the ext4 image and its size in bytes."""

    version: str
    path: Path
    size: int


def build_images(folder: Path, *, seed: int, cap_bytes: int, progress: Progress) -> tuple[DemoImage, ...]:
    """Make `VERSIONS` below `folder`, which must not hold a tree of an earlier run."""
    tree = folder / "tree"
    progress("copying this machine's libraries")
    copied = _copy_libraries(tree, cap_bytes)
    size = _image_size(copied)
    images = []
    for number, version in enumerate(VERSIONS):
        progress(f"building the root file system {version}")
        if number:
            _release(tree, random.Random(seed + number), number)  # noqa: S311 - edits must repeat, not surprise
        _write(tree / "etc" / "os-release", f'NAME="Fieldrelay demo"\nVERSION_ID={version}\n'.encode())
        images.append(DemoImage(version, _make_ext4(tree, folder / f"rootfs-{version}.ext4", size), size))
    shutil.rmtree(tree)
    return tuple(images)


def _library_files() -> Iterator[tuple[Path, Path]]:
    """Source file and name in the tree, in a fixed order."""
    paths = sysconfig.get_paths()
    roots = {Path("usr/lib/python"): Path(paths["stdlib"]), Path("opt/application"): Path(paths["purelib"])}
    for prefix, root in roots.items():
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("config-"))
            for name in sorted(names):
                source = Path(folder) / name
                if source.suffix in _KEPT and source.is_file() and not source.is_symlink():
                    yield source, prefix / source.relative_to(root)


def _copy_libraries(tree: Path, cap_bytes: int) -> int:
    """Copy files until the cap; each root may fill half of it. Returns bytes copied."""
    copied: dict[str, int] = {}
    for source, name in _library_files():
        size, root = source.stat().st_size, name.parts[0]
        if copied.get(root, 0) + size > cap_bytes // 2:
            continue
        copied[root] = copied.get(root, 0) + size
        _write(tree / name, source.read_bytes())
    return sum(copied.values())


def _release(tree: Path, dice: random.Random, number: int) -> None:
    """Edit the tree as a release would: sources, libraries, one file more, one file less."""
    sources = sorted(path for path in tree.rglob("*.py") if path.stat().st_size > 2048)
    libraries = sorted(path for path in tree.rglob("*.so"))
    for path in dice.sample(sources, min(len(sources), max(4, len(sources) // 25))):
        lines = path.read_bytes().split(b"\n")
        lines.insert(dice.randrange(len(lines)), f"# release {number}: {dice.getrandbits(64):016x}".encode())
        _write(path, b"\n".join(lines))
    for path in dice.sample(libraries, min(len(libraries), max(2, len(libraries) // 20))):
        content = bytearray(path.read_bytes())
        for _ in range(8):
            at = dice.randrange(max(1, len(content) - 64))
            content[at : at + 64] = dice.randbytes(min(64, len(content) - at))
        _write(path, bytes(content))
    _write(tree / "opt" / "application" / f"feature_{number}.py", dice.randbytes(48 << 10).hex().encode())
    dice.choice(sources).unlink()


def _image_size(content_bytes: int) -> int:
    """Size of the image: content, metadata and some free space, in whole MiB."""
    return (int(content_bytes * (1 + _FREE_SHARE)) + (16 << 20)) & ~((1 << 20) - 1)


def _make_ext4(tree: Path, image: Path, size: int) -> Path:
    """Run mke2fs without root and without mounting, then fix the change times."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size)
    for folder, _, names in os.walk(tree):
        for path in (Path(folder), *(Path(folder) / name for name in names)):
            os.utime(path, (_EPOCH_S, _EPOCH_S))
    features = "^metadata_csum,^has_journal,^resize_inode,^dir_index,uninit_bg"
    options = f"hash_seed={_UUID},lazy_itable_init=0,root_owner=0:0"
    layout = ["-b", "4096", "-m", "0", "-I", "256", "-U", _UUID, "-L", "rootfs", "-O", features, "-E", options]
    _run(["mkfs.ext4", "-q", "-F", *layout, "-d", str(tree), str(image)])
    _fix_inodes(image, sum(len(names) + len(folders) for _, folders, names in os.walk(tree)))
    return image


def _fix_inodes(image: Path, count: int) -> None:
    """Set change time and owner of every inode in use (2 is the root, 11 lost+found, files follow)."""
    inodes = [2, *range(11, 12 + count)]
    commands = "".join(f"sif <{inode}> ctime @{_EPOCH_S}\nsif <{inode}> ctime_extra 0\n"
                       f"sif <{inode}> uid 0\nsif <{inode}> gid 0\n" for inode in inodes)  # fmt: skip
    script = image.with_suffix(".debugfs")
    _write(script, commands.encode())
    _run(["debugfs", "-w", "-f", str(script), str(image)])
    script.unlink()


def _run(command: list[str]) -> None:
    found = shutil.which(command[0], path=_TOOL_PATH)
    if found is None:
        raise StateError(f"{command[0]} is not installed: install e2fsprogs, the demo's images are real ext4")
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": str(_EPOCH_S), "LC_ALL": "C"}
    done = subprocess.run([found, *command[1:]], env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise StateError(f"{command[0]} failed with {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
