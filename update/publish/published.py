"""What a repository's folder publishes now: its newest root, and what its timestamp leads to.

The folder is the publisher's own, so files are parsed here but not judged: between two steps of publishing a rotation, the
old timestamp may well be signed by a key that the new root no longer knows. Judging happens before anything is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.metadata import Root, Snapshot, T, Targets, Timestamp

from update.errors import CorruptError
from update.trust import rules
from update.trust.metadata import parse
from update.trust.rules import Trusted


@dataclass(frozen=True, slots=True)
class Current:
    """The published set; `targets` by role. Everything is None or empty before the first publishing."""

    root: Trusted[Root] | None = None
    timestamp: Trusted[Timestamp] | None = None
    snapshot: Trusted[Snapshot] | None = None
    targets: Mapping[str, Trusted[Targets]] = field(default_factory=dict)

    def version_of(self, role: str) -> int:
        """The published version of root or a targets role, 0 if there is none."""
        published = self.root if role == "root" else self.targets.get(role)
        return published.version if published is not None else 0


def read_current(metadata: Path) -> Current:
    """Read the folder `metadata`; `CorruptError` if a file that must be there is not, `MetadataError` if one is malformed."""
    versions = [int(file.name.partition(".")[0]) for file in metadata.glob("[0-9]*.root.json") if file.name.count(".") == 2]
    if not versions:
        return Current()
    root = _read(metadata, "root", f"{max(versions)}.root.json", Root, rules.MAX_ROOT_BYTES)
    if not (metadata / "timestamp.json").exists():
        return Current(root)
    timestamp = _read(metadata, "timestamp", "timestamp.json", Timestamp, rules.MAX_TIMESTAMP_BYTES)
    name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = _read(metadata, "snapshot", name, Snapshot, rules.MAX_SNAPSHOT_BYTES)
    targets = {
        role: _read(metadata, role, f"{meta.version}.{role}.json", Targets, rules.MAX_TARGETS_BYTES)
        for role, meta in ((name.removesuffix(".json"), meta) for name, meta in snapshot.signed.meta.items())
    }
    return Current(root, timestamp, snapshot, targets)


def _read(folder: Path, role: str, name: str, kind: type[T], max_bytes: int) -> Trusted[T]:
    try:
        with (folder / name).open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CorruptError(f"cannot read {folder / name}: {error.strerror}; restore the repository from a mirror") from error
    if len(data) > max_bytes:
        raise CorruptError(f"{folder / name} is larger than clients read ({max_bytes} bytes)")
    return Trusted(role, data, parse(data, kind).signed)
