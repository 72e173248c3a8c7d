"""One publication as a value: the files of a new complete set, checked by the client's own rules before any is written. Pure.

Snapshot and timestamp are made here, from the roles that were signed by their holders. The timestamp carries its issue time
(`x-issued`, signed), which moves the clients' time floor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from update.errors import ConfigurationError, StateError, TrustError
from update.publish.published import Current
from update.publish.roles import Validity
from update.publish.staging import Staged
from update.trust import rules
from update.trust.floor_values import RoleVersions
from update.trust.rules import ISSUED_FIELD, TIME_FORM, Trusted

_FORM = JSONSerializer(compact=False)


@dataclass(frozen=True, slots=True)
class Release:
    """`files` are (name in `metadata/`, bytes) in the order they must be written; `versions` of the top-level roles."""

    versions: RoleVersions
    files: tuple[tuple[str, bytes], ...]
    timestamp_expires: datetime


def assemble(
    current: Current, staged: Mapping[str, Staged], signers: Mapping[str, Sequence[Signer]], *, now: datetime, validity: Validity
) -> Release:
    """The next publication; `StateError` without a repository, `ThresholdError` and others for what a client would refuse."""
    root = _next_root(current, staged.get("root"))
    targets = {role: each.data for role, each in current.targets.items()}
    targets |= {role: each.file_bytes() for role, each in staged.items() if role != "root"}
    versions = {role: each.version for role, each in current.targets.items()}
    versions |= {role: each.signed.version for role, each in staged.items() if role != "root"}
    meta = {f"{role}.json": MetaFile.from_data(versions[role], data, ["sha256"]) for role, data in targets.items()}
    snapshot = _snapshot(current, root, meta, signers, expires=now + validity.snapshot, until=now + validity.timestamp)
    timestamp = _timestamp(current, snapshot, signers, expires=now + validity.timestamp, issued=now)
    trusted = _check(root, timestamp, snapshot, targets, now)
    files = [(f"{root.version}.root.json", root.data)] if "root" in staged else []
    files += [(f"{versions[role]}.{role}.json", targets[role]) for role in staged if role != "root"]
    files += [(f"{trusted.snapshot}.snapshot.json", snapshot), ("timestamp.json", timestamp)]
    return Release(trusted, tuple(files), (now + validity.timestamp).replace(microsecond=0))


def _next_root(current: Current, staged: Staged | None) -> Trusted[Root]:
    if staged is not None:
        data = staged.file_bytes()
        return rules.pinned_root(data) if current.root is None else rules.next_root(current.root, data)
    if current.root is None:
        raise StateError("there is no repository yet: init one, sign its root and targets, then publish")
    return current.root


def _snapshot(
    current: Current,
    root: Trusted[Root],
    meta: Mapping[str, MetaFile],
    signers: Mapping[str, Sequence[Signer]],
    *,
    expires: datetime,
    until: datetime,
) -> bytes:
    """The published snapshot while it says the same, is signed by a key of now and outlives the timestamp; else a new one."""
    known = current.snapshot
    if known is not None and known.signed.meta == meta and known.signed.expires >= until.replace(microsecond=0):
        try:
            return rules.recall(root.signed, "snapshot", known.data, Snapshot).data
        except TrustError:
            pass  # its keys were rotated
    version = known.version + 1 if known is not None else 1
    return _sign("snapshot", Snapshot(version, expires=expires, meta=dict(meta)), signers)


def _timestamp(
    current: Current, snapshot: bytes, signers: Mapping[str, Sequence[Signer]], *, expires: datetime, issued: datetime
) -> bytes:
    known = current.timestamp
    described = Metadata[Snapshot].from_bytes(snapshot).signed
    meta = MetaFile.from_data(described.version, snapshot, ["sha256"])
    fields = {ISSUED_FIELD: issued.strftime(TIME_FORM)}
    version = known.version + 1 if known is not None else 1
    return _sign("timestamp", Timestamp(version, expires=expires, snapshot_meta=meta, unrecognized_fields=fields), signers)


def _sign(role: str, signed: T, signers: Mapping[str, Sequence[Signer]]) -> bytes:
    if not signers.get(role):
        raise ConfigurationError(f"no key for {role} was given: publishing makes a new {role} and needs its online key")
    metadata = Metadata(signed)
    for signer in signers[role]:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(_FORM)


def _check(root: Trusted[Root], timestamp: bytes, snapshot: bytes, targets: Mapping[str, bytes], now: datetime) -> RoleVersions:
    """What a client that knows only this root would say."""
    none = RoleVersions()
    rules.check_expiry(root, now)
    accepted_timestamp = rules.accept_timestamp(root, timestamp, trusted=None, floor=none)
    accepted_snapshot = rules.accept_snapshot(root, accepted_timestamp, snapshot, trusted=None, floor=none)
    accepted = rules.accept_targets("targets", root, accepted_snapshot, targets["targets"])
    pending: list[Trusted[Targets]] = [accepted]
    seen = {"targets"}
    while pending:
        delegator = pending.pop()
        rules.check_expiry(delegator, now)
        for role in rules.delegated_roles(delegator.signed, accepted_snapshot.signed):
            if role not in seen:
                seen.add(role)
                pending.append(rules.accept_targets(role, delegator, accepted_snapshot, targets[role]))
    return RoleVersions(root.version, accepted_timestamp.version, accepted_snapshot.version, accepted.version)
