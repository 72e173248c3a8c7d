"""Small signed TUF repositories for everybody's tests: in memory, on disk, or served by a fetcher that misbehaves.

The builder signs with `tuf.api.metadata` directly, not with `update.publish`, so that the client is tested against
metadata that its own publisher did not make, and so that attacks can be signed that a publisher would refuse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from update.errors import EndlessDataError, NotFoundError

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
"""The time of every builder; tests inject clocks around it."""

TopRole = Literal["root", "timestamp", "snapshot", "targets"]
_FORM = JSONSerializer(compact=False)


@dataclass
class MemoryFetcher:
    """A repository as a mapping of wire path to bytes; `asked` records every request in order."""

    files: Mapping[str, bytes]
    asked: list[str] = field(default_factory=list)

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        self.asked.append(path)
        if path not in self.files:
            raise NotFoundError(f"{path} is not in this repository")
        data = self.files[path]
        if len(data) > max_bytes:
            raise EndlessDataError(f"{path}: {len(data)} bytes, at most {max_bytes} allowed")
        return data


class RepositoryBuilder:
    """A repository with real keys: root and targets two of three, snapshot and timestamp one; every role a year valid.

    Change the public `Signed` objects freely, then `publish()`. `files` is what a server would hold (wire path to bytes).
    """

    def __init__(self, *, now: datetime = START, consistent_snapshot: bool = True) -> None:
        self.now = now
        self.files: dict[str, bytes] = {}
        self.signers: dict[str, list[CryptoSigner]] = {
            role: [CryptoSigner.generate_ed25519() for _ in range(count)]
            for role, count in (("root", 3), ("targets", 3), ("snapshot", 1), ("timestamp", 1))
        }
        expires = now + timedelta(days=365)
        roles = {role: Role([], 2 if role in {"root", "targets"} else 1) for role in self.signers}
        self.root = Root(1, expires=expires, roles=roles, consistent_snapshot=consistent_snapshot)
        for role, signers in self.signers.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
        self.targets = Targets(1, expires=expires)
        self.snapshot = Snapshot(1, expires=expires)
        self.timestamp = Timestamp(1, expires=expires)
        self.delegated: dict[str, Targets] = {}
        self.publish_root()
        self.publish(bump=False)

    @property
    def root_bytes(self) -> bytes:
        """Version 1 of the root: what a device has pinned."""
        return self.files["metadata/1.root.json"]

    def fetcher(self) -> MemoryFetcher:
        """The live repository: later publishing is seen."""
        return MemoryFetcher(self.files)

    def frozen_fetcher(self) -> MemoryFetcher:
        """A copy of the repository as it is now: an old stick, a mirror that withholds."""
        return MemoryFetcher(dict(self.files))

    def add_target(
        self, path: str, content: bytes, custom: Mapping[str, object] | None = None, *, role: str = "targets"
    ) -> TargetFile:
        """List a target in `role` and put its content; `publish()` makes it visible."""
        target = TargetFile.from_data(path, content, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = dict(custom)
        signed = self.targets if role == "targets" else self.delegated[role]
        signed.targets[path] = target
        prefixed = target.get_prefixed_paths()[0] if self.root.consistent_snapshot else path
        self.files[f"targets/{prefixed}"] = content
        return target

    def delegate(self, name: str, paths: list[str], *, terminating: bool = True, by: str = "targets") -> None:
        """Delegate `paths` (patterns) to a new role with one key of its own."""
        signer = CryptoSigner.generate_ed25519()
        delegator = self.targets if by == "targets" else self.delegated[by]
        if delegator.delegations is None:
            delegator.delegations = Delegations({}, {})
        assert delegator.delegations.roles is not None
        delegator.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths)
        delegator.add_key(signer.public_key, name)
        self.signers[name] = [signer]
        self.delegated[name] = Targets(1, expires=self.now + timedelta(days=365))

    def rotate(self, role: TopRole) -> None:
        """Replace all keys of a role by new ones in a new root version and publish that; the old root keys sign as well."""
        old_root_signers = list(self.signers["root"])
        for signer in self.signers[role]:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = [CryptoSigner.generate_ed25519() for _ in self.signers[role]]
        for signer in self.signers[role]:
            self.root.add_key(signer.public_key, role)
        self.root.version += 1
        self.publish_root(also=old_root_signers)

    def publish_root(self, also: list[CryptoSigner] | None = None) -> None:
        """Write the root at its version, signed by its keys and by `also`."""
        metadata = Metadata(self.root)
        for signer in {s.public_key.keyid: s for s in [*self.signers["root"], *(also or [])]}.values():
            metadata.sign(signer, append=True)
        self.files[f"metadata/{self.root.version}.root.json"] = metadata.to_bytes(_FORM)

    def publish(self, *, bump: bool = True, issued: datetime | None = None) -> None:
        """Write targets, snapshot and timestamp (in this order), with the versions raised by one unless `bump` is false."""
        step = 1 if bump else 0
        for name, signed in [("targets", self.targets), *self.delegated.items()]:
            signed.version += step
            self.snapshot.meta[f"{name}.json"] = self._described(signed.version, self.put(name, signed))
        self.snapshot.version += step
        self.timestamp.snapshot_meta = self._described(self.snapshot.version, self.put("snapshot", self.snapshot))
        self.timestamp.version += step
        self.timestamp.unrecognized_fields["x-issued"] = (issued or self.now).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.put("timestamp", self.timestamp)

    def publish_timestamp(self, change: Callable[[Timestamp], None] | None = None) -> None:
        """A new timestamp only, after `change`."""
        self.timestamp.version += 1
        if change is not None:
            change(self.timestamp)
        self.put("timestamp", self.timestamp)

    def put(self, name: str, signed: Targets | Snapshot | Timestamp, *, signers: list[CryptoSigner] | None = None) -> bytes:
        """Sign with all keys of the role (or with `signers`) and write under the name that the version gives."""
        data = self.sign(name, signed, signers=signers)
        prefix = f"{signed.version}." if name != "timestamp" and self.root.consistent_snapshot else ""
        self.files[f"metadata/{prefix}{name}.json"] = data
        return data

    def sign(
        self, name: str, signed: Targets | Snapshot | Timestamp | Root, *, signers: list[CryptoSigner] | None = None
    ) -> bytes:
        """The bytes of one metadata file."""
        metadata: Metadata[Targets | Snapshot | Timestamp | Root] = Metadata(signed)  # type: ignore[type-var]  # all four are
        for signer in self.signers[name] if signers is None else signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(_FORM)

    def write_to(self, folder: Path) -> None:
        """The whole repository as a folder, as on a stick."""
        for path, data in self.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    @staticmethod
    def _described(version: int, data: bytes) -> MetaFile:
        return MetaFile.from_data(version, data, ["sha256"])
