"""Where everything lies below the store's root, and which release of the layout that is.

    format_version                      the number below, as text
    staging/<sha256>.part               content on its way in, with <sha256>.json: how much of it is known to be on disk
    repositories/<name>/metadata/       TUF metadata, byte for byte as it came; timestamp.json changes last
    repositories/<name>/targets/        verified content under `<folder>/<sha256>.<basename>` (TUF 1.0, section 6.2)
    repositories/<name>/trusted/        what this machine's own TUF client trusts
    sparse/<sha256>.zck, .map           partly filled images of the chunk relay
    headers/                            zchunk headers of what is known
    pairs/                              pair patches that were made here; a cache
    pins/<sha256>.json                  what must not be evicted, and for which reasons
    quarantine/                         what no longer matched its digest, moved aside for inspection

Versioning policy: a release reads its own layout and, through `UPGRADES`, every older one; a newer one is refused with
`FormatVersionError`, since writing into it could lose what that release keeps there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from update.digest import Digest
from update.durable import Disk
from update.errors import CorruptError, FormatVersionError, StateError
from update.identity import check_name
from update.trust.verified import TargetInfo, check_target_path

FORMAT_VERSION = 1
_MAX_VERSION_BYTES = 16
_NOT_OURS = frozenset({"lost+found"})

Upgrade = Callable[[Disk, Path], None]
"""Brings a root from the version that is its key to the next; runs again after a crash, so it must be idempotent."""

UPGRADES: Mapping[int, Upgrade] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one root; made by `open_layout`."""

    root: Path

    @property
    def staging(self) -> Path:
        """Partial files, one for each content digest."""
        return self.root / "staging"

    @property
    def repositories(self) -> Path:
        """One TUF repository for each name."""
        return self.root / "repositories"

    @property
    def sparse(self) -> Path:
        """Partly filled images of the chunk relay."""
        return self.root / "sparse"

    @property
    def headers(self) -> Path:
        """Zchunk headers."""
        return self.root / "headers"

    @property
    def pairs(self) -> Path:
        """Pair patches."""
        return self.root / "pairs"

    @property
    def pins(self) -> Path:
        """Pin files."""
        return self.root / "pins"

    @property
    def quarantine(self) -> Path:
        """Damaged content."""
        return self.root / "quarantine"

    def repository(self, name: str) -> Path:
        """The folder of one repository; `ConfigurationError` for a name that could leave it."""
        return self.repositories / check_name(name, "a repository")

    def metadata(self, name: str) -> Path:
        """Mirrored metadata of one repository."""
        return self.repository(name) / "metadata"

    def targets(self, name: str) -> Path:
        """Stored content of one repository."""
        return self.repository(name) / "targets"

    def trusted(self, name: str) -> Path:
        """What our own client trusts of one repository."""
        return self.repository(name) / "trusted"

    def target(self, info: TargetInfo) -> Path:
        """Final place of a target; `MetadataError` for a path that is not plain."""
        check_target_path(info.path)
        return self.repository(info.repository) / info.wire_path

    def staged(self, sha256: Digest) -> Path:
        """The partial file of one content."""
        return self.staging / f"{sha256}.part"

    def staged_record(self, sha256: Digest) -> Path:
        """What is known to be on disk of that partial file."""
        return self.staging / f"{sha256}.json"

    def pin(self, sha256: Digest) -> Path:
        """The reasons to keep one content."""
        return self.pins / f"{sha256}.json"


def open_layout(disk: Disk, root: Path, *, current: int = FORMAT_VERSION, upgrades: Mapping[int, Upgrade] = UPGRADES) -> Layout:
    """Create, upgrade or accept the layout below `root`.

    Errors: `FormatVersionError` for a newer or not upgradable layout, `StateError` for a folder that holds something else,
    `CorruptError` for an unreadable version, `StoreError` from the disk.
    """
    disk.make_folder(root)
    version = _read_version(root)
    if version is None:
        _refuse_foreign(root)
        _write_version(disk, root, current)
        version = current
    if version > current:
        raise FormatVersionError(
            f"{root} has layout version {version}, this release knows up to {current}; install the newer release again"
        )
    while version < current:
        if version not in upgrades:
            raise FormatVersionError(f"{root} has layout version {version}; no way from it to {current} in this release")
        upgrades[version](disk, root)
        version += 1
        _write_version(disk, root, version)
    layout = Layout(root)
    folders = (layout.staging, layout.repositories, layout.sparse, layout.headers, layout.pairs, layout.pins, layout.quarantine)
    for folder in folders:
        disk.make_folder(folder)
    return layout


def _version_file(root: Path) -> Path:
    return root / "format_version"


def _read_version(root: Path) -> int | None:
    try:
        with _version_file(root).open("rb") as file:
            text = file.read(_MAX_VERSION_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptError(f"cannot read {_version_file(root)}: {error.strerror or error}") from error
    if not text.strip().isdigit() or len(text) == _MAX_VERSION_BYTES:
        raise CorruptError(f"{_version_file(root)} holds {text!r} instead of a number; restore it from a backup")
    return int(text)


def _write_version(disk: Disk, root: Path, version: int) -> None:
    disk.write_file(_version_file(root), f"{version}\n".encode())


def _refuse_foreign(root: Path) -> None:
    """Only an empty folder becomes a store; rests of our own interrupted start and of the file system do not count."""
    foreign = sorted(path.name for path in root.iterdir() if path.name not in _NOT_OURS and not path.name.startswith("."))
    if foreign:
        raise StateError(f"{root} is not a store and not empty (it holds {foreign[0]!r}); name an empty folder")
