"""What our own gateway tells our own agent beside DDI: chunk metadata `fieldrelay.*`, which foreign clients ignore.

It is a hint, not a proof: the agent looks the target up in metadata that it verified itself, and refuses an order whose
target is absent there or has another digest. `fence` is the lease's number, and an agent refuses an older one. `commit`
carries the one decision about several devices that are updated together.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from update.digest import Digest, parse_digest
from update.errors import ConfigurationError, MetadataError, ProtocolError
from update.identity import check_name
from update.trust.verified import check_target_path
from update.wire.ddi import Metadata, parse_action_id

_PREFIX = "fieldrelay."
_KEYS = ("repository", "target", "sha256", "action", "fence", "commit")


class Commit(StrEnum):
    """What a node may do after its test: keep the trial, make it permanent, or go back (one decision for many devices)."""

    HOLD = "hold"
    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The chunk metadata of our own server: a hint that the agent checks against metadata which it verified itself."""

    repository: str
    target: str
    sha256: Digest
    action: int
    fence: int
    commit: Commit

    def metadata(self) -> tuple[Metadata, ...]:
        """The entries of the chunk."""
        values = (self.repository, self.target, self.sha256, str(self.action), str(self.fence), self.commit.value)
        return tuple(Metadata(key=f"{_PREFIX}{key}", value=value) for key, value in zip(_KEYS, values, strict=True))

    @classmethod
    def parse(cls, entries: Iterable[Metadata]) -> Self | None:
        """Read them back; None where there are none (another server), `ProtocolError` for half or malformed ones."""
        found = _found(entries)
        if not found:
            return None
        if missing := [key for key in _KEYS if key not in found]:
            raise ProtocolError(f"chunk metadata lacks {_PREFIX}{missing[0]}; update the gateway or the node")
        try:
            repository = check_name(found["repository"], "a repository")
            target, sha256 = check_target_path(found["target"]), parse_digest(found["sha256"])
        except (ConfigurationError, MetadataError) as error:
            raise ProtocolError(f"chunk metadata: {error}") from error
        if found["commit"] not in list(Commit):
            raise ProtocolError(f"chunk metadata {_PREFIX}commit is hold, commit or abort: got {found['commit'][:20]!r}")
        action, fence = parse_action_id(found["action"]), _counter(found["fence"])
        return cls(repository, target, sha256, action, fence, Commit(found["commit"]))


def _found(entries: Iterable[Metadata]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        key = entry.key.removeprefix(_PREFIX)
        if key == entry.key or key not in _KEYS:
            continue
        if key in found:
            raise ProtocolError(f"chunk metadata {entry.key} is there twice")
        found[key] = entry.value
    return found


def _counter(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII):
        raise ProtocolError(f"chunk metadata {_PREFIX}fence is a number: got {text[:20]!r}")
    return int(text)
