"""What our own gateway tells our own agent beside DDI: chunk metadata `fieldrelay.*`, which foreign clients ignore.

It is a hint, not a proof: the agent looks the target up in metadata that it verified itself, and refuses an order whose
target is absent there or has another digest. `fence` is the lease's number, and an agent refuses an older one. `commit`
carries the one decision about several devices that are updated together; `hold_s` and `lost` say what a node does on its
own when nobody tells it that decision. These two are both there or both absent: absent means no limit.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from update.digest import Digest, parse_digest
from update.errors import ConfigurationError, MetadataError, ProtocolError
from update.identity import check_name
from update.trust.verified import check_target_path
from update.wire.ddi import Metadata, parse_action_id

_PREFIX = "fieldrelay."
_KEYS = ("repository", "target", "sha256", "action", "fence", "commit")
_HOLD_KEYS = ("hold_s", "lost")
_Word = TypeVar("_Word", bound=StrEnum)

MAX_HOLD_S = 30 * 24 * 3600
"""The longest limit of a hold, in seconds: a trial that nobody decides on for a month was forgotten."""


class Commit(StrEnum):
    """How far a node may go: the one decision for many devices that are updated together."""

    PREPARE = "prepare"  # fetch and write, then wait
    HOLD = "hold"  # try the new version, then wait
    COMMIT = "commit"  # to the end; the only value where one device is updated by itself
    ABORT = "abort"  # back: before the trial by ending as cancelled, on trial by reverting


class Lost(StrEnum):
    """What a node on hold does when its time is over and nobody has told it the decision."""

    REVERT = "revert"  # go back to the previous version
    KEEP = "keep"  # stay on trial, and say so


@dataclass(frozen=True, slots=True)
class Assignment:
    """The chunk metadata of our own server: a hint that the agent checks against metadata which it verified itself.

    `hold_s` is how long the node holds its trial without hearing from the gateway, at most `MAX_HOLD_S`; 0: without limit.
    """

    repository: str
    target: str
    sha256: Digest
    action: int
    fence: int
    commit: Commit
    hold_s: int = 0
    lost: Lost = Lost.REVERT

    def metadata(self) -> tuple[Metadata, ...]:
        """The entries of the chunk."""
        keys: tuple[str, ...] = _KEYS
        values: tuple[str, ...] = (
            self.repository,
            self.target,
            self.sha256,
            str(self.action),
            str(self.fence),
            self.commit.value,
        )
        if self.hold_s or self.lost is not Lost.REVERT:
            keys, values = (*keys, *_HOLD_KEYS), (*values, str(self.hold_s), self.lost.value)
        return tuple(Metadata(key=f"{_PREFIX}{key}", value=value) for key, value in zip(keys, values, strict=True))

    @classmethod
    def parse(cls, entries: Iterable[Metadata]) -> Self | None:
        """Read them back; None where there are none (another server), `ProtocolError` for half or malformed ones."""
        found = _found(entries)
        if not found:
            return None
        wanted = _KEYS if found.keys().isdisjoint(_HOLD_KEYS) else (*_KEYS, *_HOLD_KEYS)
        if missing := [key for key in wanted if key not in found]:
            raise ProtocolError(f"chunk metadata lacks {_PREFIX}{missing[0]}; update the gateway or the node")
        try:
            repository = check_name(found["repository"], "a repository")
            target, sha256 = check_target_path(found["target"]), parse_digest(found["sha256"])
        except (ConfigurationError, MetadataError) as error:
            raise ProtocolError(f"chunk metadata: {error}") from error
        action, fence, commit = (
            parse_action_id(found["action"]),
            _counter(found["fence"], "fence"),
            _word(found, Commit, "commit"),
        )
        if "lost" not in found:
            return cls(repository, target, sha256, action, fence, commit)
        return cls(repository, target, sha256, action, fence, commit, _hold_s(found["hold_s"]), _word(found, Lost, "lost"))


def _found(entries: Iterable[Metadata]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        key = entry.key.removeprefix(_PREFIX)
        if key == entry.key or key not in {*_KEYS, *_HOLD_KEYS}:
            continue
        if key in found:
            raise ProtocolError(f"chunk metadata {entry.key} is there twice")
        found[key] = entry.value
    return found


def _counter(text: str, key: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII):
        raise ProtocolError(f"chunk metadata {_PREFIX}{key} is a number: got {text[:20]!r}")
    return int(text)


def _hold_s(text: str) -> int:
    seconds = _counter(text, "hold_s")
    if seconds > MAX_HOLD_S:
        raise ProtocolError(f"chunk metadata {_PREFIX}hold_s is at most {MAX_HOLD_S}: got {seconds}")
    return seconds


def _word(found: Mapping[str, str], kind: type[_Word], key: str) -> _Word:
    if found[key] not in list(kind):
        allowed = ", ".join(kind)
        raise ProtocolError(f"chunk metadata {_PREFIX}{key} is one of {allowed}: got {found[key][:20]!r}")
    return kind(found[key])
