"""A publisher's TUF repository in a folder: prepare, sign one signature at a time, publish. Holds no private key itself.

    metadata/   what clients read; every version has a file of its own, only timestamp.json is replaced
    targets/    <folder>/<sha256>.<basename>, one digest per target (consistent snapshots; TUF 1.0, section 6.2)
    staged/     roles that wait for signatures (`update.publish.staging`)

`init`, `add`, `delegate`, `rotate` and `renew` prepare a new version of root or a targets role; `sign` adds one signature by
one holder; `publish` checks by the client's own rules that every threshold is met, makes snapshot and timestamp with their
online keys, and writes in the order that never shows a client an incomplete set: targets (already there), root, targets
roles, snapshot, timestamp last. What no timestamp leads to yet may be written again after a power cut; a root is seen by
clients at once and stays as it is.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, TargetFile, Targets

from update.digest import Digest, parse_digest
from update.durable import Disk
from update.errors import ConfigurationError, StateError, StoreError
from update.identity import check_name
from update.publish import roles
from update.publish.published import Current, read_current
from update.publish.release import Release, assemble
from update.publish.roles import DEFAULT_VALIDITY, Holders, RoleKeys, Validity
from update.publish.staging import Staged, Staging
from update.publish.status import RepositoryStatus, describe
from update.trust.rules import MAX_VERSION, Trusted
from update.trust.verified import TargetCustom, TargetInfo, check_target_path

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was added: what it is for, and what each group of holders still lacks (group: how many)."""

    role: str
    version: int
    keyid: str
    missing: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether the role can be published."""
        return not any(self.missing.values())


class PublishedRepository:
    """The verbs. Errors: `StateError`, `ConfigurationError`, `TrustError` leaves from the rules, `StoreError` leaves."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        now: Callable[[], datetime],
        *,
        name: str = "repository",
        validity: Validity = DEFAULT_VALIDITY,
    ) -> None:
        self.folder = folder
        self.name = name
        self._disk = disk
        self._now = now
        self._validity = validity
        self._metadata = folder / "metadata"
        self._staging = Staging(disk, folder / "staged")

    def init(self, plan: Mapping[str, RoleKeys]) -> Staged:
        """Stage root version 1 for the four top-level roles, and an empty targets role; `StateError` if there is one already."""
        if self._current().root is not None or self._staging.roles():
            raise StateError(f"{self.folder} holds a repository already; sign and publish what is staged, or rotate its root")
        root = roles.new_root(plan, self._expiry(self._validity.root))
        self._staging.stage("targets", Targets(1, expires=self._expiry(self._validity.targets)))
        return self._staging.stage("root", root)

    def add(self, file: Path, path: str, custom: TargetCustom, *, role: str = "targets") -> TargetInfo:
        """Copy `file` under its digest and list it as `path` in the next version of `role`; a target of that path is replaced."""
        check_target_path(path)
        targets = self._next_targets(role)
        digest, length = self._copy(file, path)
        target = TargetFile(length, {"sha256": digest}, path, {"custom": custom.as_json()})
        targets.targets[path] = target
        targets.expires = self._expiry(self._validity.targets)
        self._staging.stage(role, targets)
        return TargetInfo(self.name, path, length, digest, custom, role)

    def listed(self) -> Mapping[str, TargetInfo]:
        """Every target that would be listed after the next publication, by path; of staged roles what is staged."""
        newest = {role: trusted.signed for role, trusted in self._current().targets.items()}
        staged = {role: self._staged(role).signed for role in self._staging.roles()}
        newest |= {role: signed for role, signed in staged.items() if isinstance(signed, Targets)}
        return {path: self._info(role, target) for role, signed in newest.items() for path, target in signed.targets.items()}

    def remove(self, path: str, *, role: str = "targets") -> None:
        """No longer list `path`; the file stays for clients that still see the old version."""
        targets = self._next_targets(role)
        if targets.targets.pop(path, None) is None:
            raise StateError(f"{role} does not list {path!r}")
        targets.expires = self._expiry(self._validity.targets)
        self._staging.stage(role, targets)

    def delegate(self, name: str, keys: RoleKeys, paths: Sequence[str], *, terminating: bool = True) -> None:
        """Let the role `name`, with keys of its own, sign targets that match `paths` (`vendor/*`; `*` does not cross a slash)."""
        if check_name(name, "a role's name") in roles.TOP_LEVEL:
            raise ConfigurationError(f"{name!r} is a top-level role and cannot be delegated")
        targets = self._next_targets("targets")
        roles.delegate(targets, name, keys, paths, terminating=terminating)
        targets.expires = self._expiry(self._validity.targets)
        self._staging.stage("targets", targets)
        if name not in self._current().targets and self._staging.read(name) is None:
            self._staging.stage(name, Targets(1, expires=self._expiry(self._validity.targets)))

    def rotate(self, changes: Mapping[str, RoleKeys]) -> Staged:
        """Stage the next root with other keys or thresholds; the old and the new root holders must sign it.

        New holders of `targets` must sign that role too: `renew` it, and publish both together.
        """
        root = self._next_root()
        for role, keys in changes.items():
            roles.set_keys(root, role, keys)
        root.expires = self._expiry(self._validity.root)
        return self._staging.stage("root", root)

    def renew(self, role: str) -> Staged:
        """Stage the next version of root or a targets role with nothing changed but its expiry."""
        if role == "root":
            return self.rotate({})
        targets = self._next_targets(role)
        targets.expires = self._expiry(self._validity.targets)
        return self._staging.stage(role, targets)

    def sign(self, role: str, signer: Signer) -> Signed:
        """Add one holder's signature to a staged role; `ConfigurationError` if his key is not among the holders'."""
        self._settle()
        staged = self._staged(role)
        groups = self._holders(role)
        keyid = signer.public_key.keyid
        if not any(keyid in group.keys for group in groups):
            raise ConfigurationError(
                f"the key {keyid[:16]}… may not sign {role} version {staged.signed.version}; "
                f"its holders are {', '.join(sorted({each[:16] + '…' for group in groups for each in group.keys}))}"
            )
        if keyid not in staged.signatures:
            payload = staged.payload()
            signature = signer.sign(payload)
            signer.public_key.verify_signature(signature, payload)
            self._staging.add_signature(role, signature)
        return Signed(role, staged.signed.version, keyid, self._missing(self._staged(role)))

    def discard(self, role: str, *, signatures_only: bool = False) -> None:
        """Forget a staged role, or only its signatures so that it may change again."""
        self._staged(role)
        if signatures_only:
            self._staging.discard_signatures(role)
        else:
            self._staging.discard(role)

    def publish(self, signers: Mapping[str, Sequence[Signer]]) -> Release:
        """Publish what is staged and complete, with a new timestamp; `signers` are those of `snapshot` and `timestamp`.

        Roles that still wait for signatures stay staged; for the first time root and targets must be complete. With nothing
        complete only the timestamp is new (and the snapshot, if it expires first). Nothing is written unless all of
        it is right; after a power cut in between, publish again.
        """
        self._settle()
        current, staged = self._current(), {role: self._staged(role) for role in self._staging.roles()}
        if current.root is not None:
            staged = {role: each for role, each in staged.items() if not any(self._missing(each).values())}
        release = assemble(current, staged, signers, now=self._now(), validity=self._validity)
        self._disk.make_folder(self._metadata)
        for name, data in release.files:
            self._disk.write_file(self._metadata / name, data)
        for role in staged:
            self._staging.discard(role)
        return release

    def status(self) -> RepositoryStatus:
        """What is published and until when, what is staged, who has signed and who is missing; `StateError` without a folder."""
        if not self.folder.is_dir():
            raise StateError(f"there is no folder {self.folder}; name the repository's folder, or make one with repo init")
        self._settle()
        staged = [self._staged(role) for role in self._staging.roles()]
        return describe(self._current(), [(each, self._holders(each.role)) for each in staged], self._now())

    def _info(self, role: str, target: TargetFile) -> TargetInfo:
        custom = TargetCustom.parse(target.custom)
        return TargetInfo(self.name, target.path, target.length, parse_digest(target.hashes["sha256"]), custom, role)

    def _holders(self, role: str) -> list[Holders]:
        """Every group whose threshold the staged role must meet."""
        current, staged = self._current(), self._staging.read("root")
        root = staged.signed if staged is not None else current.root and current.root.signed
        groups: list[Holders | None] = []
        if role == "root" and current.root is not None:
            groups.append(roles.holders(current.root.signed, "root", f"root version {current.root.version}"))
        if isinstance(root, Root):
            groups.append(roles.holders(root, role, f"root version {root.version}"))
        delegators = self._targets_roles(current)
        groups.extend(roles.holders(delegator, role, "the delegating targets role") for delegator in delegators)
        found = [group for group in groups if group is not None]
        if not found:
            raise StateError(f"nobody is trusted to sign {role}: delegate it first")
        return found

    def _missing(self, staged: Staged) -> dict[str, int]:
        """How many signatures each group of holders still lacks."""
        groups = self._holders(staged.role)
        return {group.of: max(0, group.threshold - len(staged.signatures.keys() & group.keys.keys())) for group in groups}

    def _targets_roles(self, current: Current) -> list[Targets]:
        """The newest version of every targets role, staged before published."""
        newest = {role: trusted.signed for role, trusted in current.targets.items()}
        for role in self._staging.roles():
            signed = self._staged(role).signed
            if isinstance(signed, Targets):
                newest[role] = signed
        return [signed for signed in newest.values() if signed.delegations is not None]

    def _settle(self) -> None:
        """Discard what is staged at a version that is published already: a power cut came before that was done."""
        current = self._current()
        for role in self._staging.roles():
            if self._staged(role).signed.version <= current.version_of(role):
                self._staging.discard(role)

    def _next_root(self) -> Root:
        self._settle()
        staged = self._staging.read("root")
        if staged is not None and isinstance(staged.signed, Root):
            return staged.signed
        current = self._current().root
        if current is None:
            raise StateError(f"{self.folder} holds no repository yet: init one first")
        root = copy.deepcopy(current.signed)
        root.version = _next(current)
        return root

    def _next_targets(self, role: str) -> Targets:
        """The staged version of a targets role, or a copy of the published one with the next version."""
        self._settle()
        staged = self._staging.read(role)
        if staged is not None and isinstance(staged.signed, Targets):
            if staged.signatures:
                raise StateError(
                    f"{role} version {staged.signed.version} carries {len(staged.signatures)} signature(s) and is frozen; "
                    "publish it, or discard the signatures first"
                )
            return staged.signed
        current = self._current().targets.get(role)
        if current is None:
            raise StateError(f"{self.folder} has no role {role!r}: init the repository or delegate the role first")
        targets = copy.deepcopy(current.signed)
        targets.version = _next(current)
        return targets

    def _staged(self, role: str) -> Staged:
        staged = self._staging.read(role)
        if staged is None:
            raise StateError(f"{role} is not staged in {self.folder}: there is nothing to sign or publish")
        return staged

    def _copy(self, file: Path, path: str) -> tuple[Digest, int]:
        """Copy a target durably, hashing the very bytes that are written; the file's name is their digest."""
        folder = (self.folder / "targets" / path).parent
        self._disk.make_folder(folder)
        temporary = folder / f".{hashlib.sha256(path.encode('ascii')).hexdigest()[:16]}.tmp"
        state, length = hashlib.sha256(), 0
        try:
            with file.open("rb") as source, self._disk.open(temporary, fresh=True) as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write_at(length, block)
                    state.update(block)
                    length += len(block)
                target.sync()
        except OSError as error:
            raise StoreError(f"cannot read {file} to publish it: {error.strerror}") from error
        digest = Digest(state.hexdigest())
        self._disk.publish(temporary, folder / f"{digest}.{path.rpartition('/')[2]}")
        return digest, length

    def _current(self) -> Current:
        return read_current(self._metadata)

    def _expiry(self, valid_for: timedelta) -> datetime:
        return self._now() + valid_for


def _next(current: Trusted[Root] | Trusted[Targets]) -> int:
    if current.version >= MAX_VERSION:
        raise StateError(
            f"{current.role} is at version {current.version}, the last one: rotate its keys and start a new repository"
        )
    return current.version + 1
