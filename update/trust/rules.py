"""The rules of TUF 1.0 for a client (specification, section 5), as functions of values: no I/O, no clock.

Each accept function takes what is trusted already, the floor, and untrusted bytes; it returns a `Trusted` value or raises.
Which attack meets which refusal:

    rollback                         RollbackError       a version below a trusted one, or below the floor
    freeze                           ExpiredError        past its expiry at the time given
    mix-and-match                    MixAndMatchError    genuine metadata, but not the version or bytes announced with it
    arbitrary software               SignatureError      no signature by a trusted key
                                     LengthOrHashError   bytes that are neither announced nor genuine
    key compromise below threshold   ThresholdError      fewer distinct keys than demanded
    fast-forward                     FastForwardError    a version of 2^31 or more, or an issue time beyond the root's expiry;
                                                         below that: recovery by rotating the keys (section 5.3.11)
    endless data                     EndlessDataError    more than the limits below; the fetcher stops reading there
    slow retrieval                   SlowError           raised by the fetcher, which sees the rate

A version number has no honest reason to come near 2^31 (one per second would take 68 years), so it is refused outright: the
last number would leave a repository without a successor until its keys are rotated. Versions below are not limited in their
steps, because a device may be switched off for years, or the publisher may count in seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp

from update.digest import parse_digest
from update.errors import (
    EndlessDataError,
    ExpiredError,
    FastForwardError,
    LengthOrHashError,
    MetadataError,
    MixAndMatchError,
    RollbackError,
    SignatureError,
    ThresholdError,
    TrustError,
)
from update.trust.floor_values import RoleVersions
from update.trust.metadata import parse, signed_bytes
from update.trust.verified import MAX_LENGTH_BYTES, TargetCustom, TargetInfo, check_target_path

MAX_ROOT_BYTES = 512_000
MAX_TIMESTAMP_BYTES = 16_384
MAX_SNAPSHOT_BYTES = 2_000_000
MAX_TARGETS_BYTES = 5_000_000
MAX_ROOTS = 256
MAX_DELEGATIONS = 32
MAX_VERSION = 2**31 - 1
ISSUED_FIELD = "x-issued"
TIME_FORM = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Trusted(Generic[T]):
    """Metadata that passed the rules: the exact bytes, and what they say."""

    role: str
    data: bytes
    signed: T

    @property
    def version(self) -> int:
        """The version of the metadata."""
        return self.signed.version


AnyTrusted = Trusted[Root] | Trusted[Timestamp] | Trusted[Snapshot] | Trusted[Targets]


def pinned_root(data: bytes) -> Trusted[Root]:
    """The root that a device was given in advance: it must at least be signed as it demands itself."""
    metadata = parse(data, Root)
    _check_signatures("root", metadata.signed, metadata)
    return _trusted("root", data, metadata)


def next_root(current: Trusted[Root], data: bytes) -> Trusted[Root]:
    """Section 5.3: signed by the current root's threshold and by its own, and exactly one version higher."""
    metadata = parse(data, Root)
    _check_signatures("root", current.signed, metadata)
    offered, expected = metadata.signed.version, current.version + 1
    if offered < expected:
        raise RollbackError(
            f"root version {offered} was offered where {expected} belongs; the repository is old or was tampered with"
        )
    if offered > expected:
        raise MixAndMatchError(
            f"root version {offered} was offered where {expected} belongs; publish every root under its own number"
        )
    _check_signatures("root", metadata.signed, metadata)
    return _trusted("root", data, metadata)


def recall(delegator: Root, role: str, data: bytes, kind: type[T]) -> Trusted[T]:
    """Metadata that was stored earlier, checked again against the root of now; the base of rollback comparisons."""
    metadata = parse(data, kind)
    _check_signatures(role, delegator, metadata)
    return _trusted(role, data, metadata)


def keys_rotated(old: Root, new: Root) -> bool:
    """Section 5.3.11: whether the keys of timestamp or snapshot changed, which asks for fast-forward recovery."""
    return any(set(old.roles[role].keyids) != set(new.roles[role].keyids) for role in ("timestamp", "snapshot"))


def accept_timestamp(
    root: Trusted[Root], data: bytes, *, trusted: Trusted[Timestamp] | None, floor: RoleVersions
) -> Trusted[Timestamp]:
    """Section 5.4. Returns `trusted` itself if the version did not change: the file of that version stays the one it was."""
    metadata = parse(data, Timestamp)
    _check_signatures("timestamp", root.signed, metadata)
    offered = metadata.signed
    _check_version("timestamp", offered.version, max(floor.timestamp, trusted.version if trusted else 0))
    known_snapshot = trusted.signed.snapshot_meta.version if trusted else 0
    _check_version("snapshot", offered.snapshot_meta.version, max(floor.snapshot, known_snapshot))
    if trusted is not None and trusted.version == offered.version:
        return trusted
    issued_time(offered, root.signed)
    return _trusted("timestamp", data, metadata)


def accept_snapshot(
    root: Trusted[Root], timestamp: Trusted[Timestamp], data: bytes, *, trusted: Trusted[Snapshot] | None, floor: RoleVersions
) -> Trusted[Snapshot]:
    """Section 5.5: what the timestamp announces, signed, and no role missing or older than in the trusted snapshot."""

    def verified() -> Metadata[Snapshot]:
        metadata = parse(data, Snapshot)
        _check_signatures("snapshot", root.signed, metadata)
        return metadata

    metadata = _check_announced("snapshot", timestamp.signed.snapshot_meta, data, verified)
    offered = metadata.signed.meta
    for name, known in (trusted.signed.meta if trusted else {}).items():
        if name not in offered:
            raise RollbackError(f"snapshot {metadata.signed.version} no longer lists {name[:80]!r}, which the trusted one has")
        _check_version(name, offered[name].version, known.version)
    _check_version("targets", announced_targets(metadata.signed, "targets").version, floor.targets)
    return _trusted("snapshot", data, metadata)


def announced_targets(snapshot: Snapshot, role: str) -> MetaFile:
    """What a snapshot says of a targets role; `MetadataError` if nothing."""
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise MetadataError(
            f"snapshot {snapshot.version} does not list the role {role[:80]!r}; the publisher must list every role"
        )
    return meta


def accept_targets(
    role: str, delegator: Trusted[Root] | Trusted[Targets], snapshot: Trusted[Snapshot], data: bytes
) -> Trusted[Targets]:
    """Section 5.6: what the snapshot announces, signed as the delegating role demands."""

    def verified() -> Metadata[Targets]:
        metadata = parse(data, Targets)
        _check_signatures(role, delegator.signed, metadata)
        return metadata

    return _trusted(role, data, _check_announced(role, announced_targets(snapshot.signed, role), data, verified))


def check_expiry(trusted: AnyTrusted, now: datetime) -> None:
    """`ExpiredError` once `now` has reached the expiry (freeze attack)."""
    if trusted.signed.is_expired(now):
        raise ExpiredError(
            f"{trusted.role} version {trusted.version} expired at {trusted.signed.expires.strftime(TIME_FORM)}, it is now "
            f"{now.strftime(TIME_FORM)}; fetch newer metadata or bring a newer stick"
        )


def announced_limit(role: str, meta: MetaFile, limit: int) -> int:
    """How many bytes may be read: the announced length, or `limit`; `EndlessDataError` for an announcement above the limit."""
    if meta.length is not None and meta.length > limit:
        raise EndlessDataError(f"{role} is announced with {meta.length} bytes, at most {limit} are read")
    return limit if meta.length is None else meta.length


def issued_time(timestamp: Timestamp, root: Root) -> datetime | None:
    """When a timestamp was made (signed custom field `x-issued`, UTC); None if it does not say.

    The time floor follows it, so it is bounded by a date that only offline keys can set: `FastForwardError` beyond the root's
    expiry. `MetadataError` if malformed.
    """
    text = timestamp.unrecognized_fields.get(ISSUED_FIELD)
    if text is None:
        return None
    try:
        issued = datetime.strptime(str(text), TIME_FORM).replace(tzinfo=UTC)
    except ValueError as error:
        raise MetadataError(
            f"timestamp version {timestamp.version}: {ISSUED_FIELD} is not a UTC time: {str(text)[:40]!r}"
        ) from error
    if issued > root.expires:
        raise FastForwardError(
            f"timestamp version {timestamp.version} claims to be issued at {text}, after the root's expiry "
            f"{root.expires.strftime(TIME_FORM)}; renew the root first"
        )
    return issued


def roles_for(targets: Targets, path: str) -> list[tuple[str, bool]]:
    """The roles that `targets` trusts for `path`, in order, each with whether it terminates the search (section 5.6.7)."""
    return list(targets.delegations.get_roles_for_target(path)) if targets.delegations is not None else []


def delegated_roles(targets: Targets, snapshot: Snapshot) -> list[str]:
    """All roles that `targets` delegates to and that `snapshot` lists, hash bins (TAP 15) included."""
    delegations = targets.delegations
    if delegations is None:
        return []
    if delegations.roles is not None:
        return [name for name in delegations.roles if f"{name}.json" in snapshot.meta]
    bins = delegations.succinct_roles
    names = [file.removesuffix(".json") for file in snapshot.meta]
    return [name for name in names if bins is not None and bins.is_delegated_role(name)]


def target_info(repository: str, targets: Trusted[Targets], path: str, *, prefixed: bool) -> TargetInfo | None:
    """One target as verified metadata describes it, None if the role does not list it; `MetadataError` if it cannot be meant."""
    target = targets.signed.targets.get(path)
    if target is None:
        return None
    check_target_path(path)
    if "sha256" not in target.hashes:
        raise MetadataError(f"target {path!r} is listed without a SHA-256 digest; list exactly that one")
    if target.length > MAX_LENGTH_BYTES:
        raise MetadataError(f"target {path!r} is listed with {target.length} bytes; at most {MAX_LENGTH_BYTES} are possible")
    custom = TargetCustom.parse(target.custom)
    return TargetInfo(
        repository, path, target.length, parse_digest(target.hashes["sha256"]), custom, targets.role, prefixed=prefixed
    )


def _trusted(role: str, data: bytes, metadata: Metadata[T]) -> Trusted[T]:
    if metadata.signed.version > MAX_VERSION:
        raise _fast_forward(role, metadata.signed.version)
    return Trusted(role, data, metadata.signed)


def _fast_forward(role: str, version: int) -> FastForwardError:
    return FastForwardError(
        f"{role[:80]} version {version} is above {MAX_VERSION}: no later release could follow it; "
        "have the publisher rotate the keys of the role and start again"
    )


def _check_version(role: str, offered: int, known: int) -> None:
    if offered < known:
        raise RollbackError(
            f"{role[:80]} version {offered} was offered, {known} is already trusted; use a current mirror or stick"
        )
    if offered > MAX_VERSION:
        raise _fast_forward(role, offered)


def _check_announced(role: str, announced: MetaFile, data: bytes, verified: Callable[[], Metadata[T]]) -> Metadata[T]:
    """Length and hashes first; a file that is genuine but another one than announced is told apart from a damaged one."""
    try:
        announced.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        try:
            version = verified().signed.version
        except TrustError:
            raise LengthOrHashError(f"{role} is not what was announced: {error}; fetch it again") from error
        raise MixAndMatchError(
            f"{role} version {version} is genuine, but not the file that was announced (version {announced.version}): {error}"
        ) from error
    metadata = verified()
    if metadata.signed.version != announced.version:
        raise MixAndMatchError(f"{role} version {metadata.signed.version} was found where {announced.version} was announced")
    return metadata


def _check_signatures(role: str, delegator: Root | Targets, metadata: Metadata[T]) -> None:
    """Section 5.3.4 and others: signatures of at least the threshold of distinct public keys."""
    try:
        delegated = delegator.get_delegated_role(role)
    except ValueError as error:
        raise MetadataError(f"role {role[:80]!r} is not delegated by the role that should") from error
    payload = signed_bytes(metadata)
    good = {public for keyid in delegated.keyids if (public := _signing_key(delegator, keyid, metadata, payload)) is not None}
    if len(good) >= delegated.threshold:
        return
    message = f"{role} version {metadata.signed.version} was signed by {len(good)} of {delegated.threshold} trusted keys"
    if not good:
        raise SignatureError(f"{message}; it is not from who this device trusts")
    raise ThresholdError(f"{message}; the missing holders must sign before it is published")


def _signing_key(delegator: Root | Targets, keyid: str, metadata: Metadata[T], payload: bytes) -> str | None:
    """The public key of `keyid` if it signed `payload`; keys of other kinds than plain public keys never count."""
    signature = metadata.signatures.get(keyid)
    try:
        key = delegator.get_key(keyid)
        if signature is None or not isinstance(key, SSlibKey):
            return None
        key.verify_signature(signature, payload)
    except (ValueError, UnverifiedSignatureError):
        return None
    return str(key.keyval["public"]).strip()
