"""The state of a publisher's repository as values: what is published until when, what is staged, who still must sign. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Root, Targets

from update.publish.published import Current
from update.publish.roles import Holders, holders
from update.publish.staging import Staged


@dataclass(frozen=True, slots=True)
class PublishedRole:
    """A role as clients see it; `threshold` of `keyids` sign it."""

    role: str
    version: int
    expires: datetime
    expired: bool
    threshold: int
    keyids: tuple[str, ...]
    targets: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """One group of holders of a staged role: key ids that have signed, those that have not, and how many are still needed."""

    of: str
    threshold: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Signatures still needed from this group."""
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True, slots=True)
class StagedRole:
    """A role that waits for signatures."""

    role: str
    version: int
    expires: datetime
    groups: tuple[Group, ...]

    @property
    def complete(self) -> bool:
        """Whether it can be published."""
        return all(group.missing == 0 for group in self.groups)


@dataclass(frozen=True, slots=True)
class RepositoryStatus:
    """Everything a publisher asks about; `published` is empty before the first publishing."""

    published: tuple[PublishedRole, ...]
    staged: tuple[StagedRole, ...]


def describe(current: Current, staged: Sequence[tuple[Staged, Sequence[Holders]]], now: datetime) -> RepositoryStatus:
    """Turn metadata into a status; the first published role to expire comes first."""
    return RepositoryStatus(
        tuple(sorted(_published(current, now), key=lambda role: (role.expires, role.role))),
        tuple(
            StagedRole(each.role, each.signed.version, each.signed.expires, tuple(_group(each, group) for group in groups))
            for each, groups in staged
        ),
    )


def _published(current: Current, now: datetime) -> list[PublishedRole]:
    if current.root is None:
        return []
    delegators: list[Root | Targets] = [current.root.signed, *(targets.signed for targets in current.targets.values())]
    tops = [each for each in (current.root, current.timestamp, current.snapshot) if each is not None]
    found = []
    for trusted in [*tops, *current.targets.values()]:
        groups = [group for group in (holders(delegator, trusted.role, "") for delegator in delegators) if group is not None]
        found.append(
            PublishedRole(
                role=trusted.role,
                version=trusted.version,
                expires=trusted.signed.expires,
                expired=trusted.signed.is_expired(now),
                threshold=groups[0].threshold if groups else 0,
                keyids=tuple(groups[0].keys) if groups else (),
                targets=len(trusted.signed.targets) if isinstance(trusted.signed, Targets) else 0,
            )
        )
    return found


def _group(staged: Staged, group: Holders) -> Group:
    signed = tuple(sorted(keyid for keyid in group.keys if keyid in staged.signatures))
    unsigned = tuple(sorted(keyid for keyid in group.keys if keyid not in staged.signatures))
    return Group(group.of, group.threshold, signed, unsigned)
