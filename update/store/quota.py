"""Which stored content goes when room is needed: a pure decision over values.

Pinned content never goes. Of the rest the least recently used goes first, as many as needed and no more; among equals
the larger one, then by digest, so that the answer does not depend on the order of a folder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from update.digest import Digest
from update.errors import NoSpaceError


@dataclass(frozen=True, slots=True)
class Held:
    """One stored content: its size in bytes and when it was last used (seconds since the epoch)."""

    repository: str
    file: Path
    sha256: Digest
    size_bytes: int
    last_used_s: float
    pinned: bool = False


def choose_evictions(
    held: Iterable[Held], *, needed_bytes: int, quota_bytes: int, free_bytes: int | None = None
) -> tuple[Held, ...]:
    """What to remove, in order, so that `needed_bytes` more fit the quota and, if given, the free space of the disk.

    `NoSpaceError` if removing everything unpinned would not be enough; nothing is to be removed then.
    """
    candidates = tuple(held)
    used = sum(each.size_bytes for each in candidates)
    excess = used + needed_bytes - quota_bytes
    if free_bytes is not None:
        excess = max(excess, needed_bytes - free_bytes)
    chosen: list[Held] = []
    for each in sorted(candidates, key=_order):
        if excess <= 0:
            break
        if not each.pinned and each.size_bytes:
            chosen.append(each)
            excess -= each.size_bytes
    if excess > 0:
        pinned = sum(each.size_bytes for each in candidates if each.pinned)
        raise NoSpaceError(
            f"{needed_bytes} bytes needed, quota {quota_bytes}, stored {used} of which {pinned} are pinned; {excess} bytes are "
            "missing even with all the rest removed: raise the quota, enlarge the disk, or finish what pins them"
        )
    return tuple(chosen)


def _order(each: Held) -> tuple[float, int, str, str]:
    return each.last_used_s, -each.size_bytes, each.sha256, each.repository
