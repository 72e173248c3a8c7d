"""Who may sign what in a repository: keys and thresholds as plain values, and the metadata objects made from them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, Targets

from update.errors import ConfigurationError

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The public keys that may sign for a role, and how many distinct ones must."""

    keys: tuple[SSlibKey, ...]
    threshold: int

    def check(self, role: str) -> None:
        """`ConfigurationError` unless the threshold can be met by distinct keys."""
        distinct = {key.keyval["public"] for key in self.keys}
        if len(distinct) != len(self.keys):
            raise ConfigurationError(f"{role}: the same public key is named twice; every holder has a key of his own")
        if not 1 <= self.threshold <= len(self.keys):
            raise ConfigurationError(f"{role}: a threshold of {self.threshold} does not fit {len(self.keys)} key(s)")


@dataclass(frozen=True, slots=True)
class Validity:
    """How long new metadata is valid. Longer for roles signed offline; short for the timestamp, which proves freshness."""

    root: timedelta = timedelta(days=3650)
    targets: timedelta = timedelta(days=365)
    snapshot: timedelta = timedelta(days=14)
    timestamp: timedelta = timedelta(days=14)


DEFAULT_VALIDITY = Validity()


@dataclass(frozen=True, slots=True)
class Holders:
    """One group whose threshold a role's metadata must meet: `of` says whose rule it is (`root version 2`)."""

    of: str
    keys: Mapping[str, Key]
    threshold: int


def new_root(plan: Mapping[str, RoleKeys], expires: datetime) -> Root:
    """Root version 1 for the four top-level roles."""
    if set(plan) != set(TOP_LEVEL):
        raise ConfigurationError(
            f"a repository needs keys for {', '.join(TOP_LEVEL)}; given: {', '.join(sorted(plan)) or 'none'}"
        )
    root = Root(1, expires=expires, roles={role: Role([], 1) for role in TOP_LEVEL}, consistent_snapshot=True)
    for role, keys in plan.items():
        set_keys(root, role, keys)
    return root


def set_keys(root: Root, role: str, keys: RoleKeys) -> None:
    """Replace keys and threshold of a top-level role; keys that no role uses any more leave the root."""
    if role not in TOP_LEVEL:
        raise ConfigurationError(f"{role!r} is no top-level role; choose one of {', '.join(TOP_LEVEL)}")
    keys.check(role)
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in keys.keys:
        root.add_key(key, role)
    root.roles[role].threshold = keys.threshold


def delegate(targets: Targets, name: str, keys: RoleKeys, paths: Sequence[str], *, terminating: bool) -> None:
    """Trust `name` for targets that match `paths`; a delegation of that name is replaced and keeps its place in the order."""
    keys.check(name)
    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    roles = targets.delegations.roles
    if roles is None:
        raise ConfigurationError("this role delegates to hash bins; they cannot be mixed with named roles")
    for keyid in list(roles[name].keyids) if name in roles else []:
        targets.revoke_key(keyid, name)
    roles[name] = DelegatedRole(name, [], keys.threshold, terminating, list(paths))
    for key in keys.keys:
        targets.add_key(key, name)


def holders(delegator: Root | Targets, role: str, of: str) -> Holders | None:
    """Who must sign `role` by the rule of `delegator`; None if it does not delegate it."""
    try:
        rule = delegator.get_delegated_role(role)
    except ValueError:
        return None
    return Holders(of, {keyid: delegator.get_key(keyid) for keyid in rule.keyids}, rule.threshold)
