"""What the gateway remembers, as pure values: queries return them, decisions take them, nothing here can do I/O.

Two facts are kept apart for every node: what runs (`Node.running`, told by the node) and what is wanted (`Action`, decided
by the node's one assigner). Action ids are 32-bit positive integers because clients parse them as C `int`
(hawkBit DDI clients clamp larger ones and lose the result).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from update.digest import Digest
from update.identity import Hardware

MAX_ACTION_ID = 2**31 - 1
SITE = "site"


class ClientKind(StrEnum):
    """What speaks for the node: views of the same action differ by it."""

    AGENT = "agent"
    SWUPDATE = "swupdate"
    RAUC = "rauc"


class ActionState(StrEnum):
    """The life of an action."""

    OPEN = "open"
    CANCELLING = "cancelling"
    CLOSED = "closed"


class ActionOutcome(StrEnum):
    """How an action ended, as the gateway books it."""

    SUCCESS = "success"
    FAILURE = "failure"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    INCONSISTENT = "inconsistent"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Commit(StrEnum):
    """What a node may do after its test: keep the trial, make it permanent, or go back (one decision for many devices)."""

    HOLD = "hold"
    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Running:
    """What a node says it runs; empty strings where it has not said."""

    version: str = ""
    sha256: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A device that polls the gateway; `fence` is the newest one given out for it."""

    id: str
    kind: ClientKind
    assigner: str
    fingerprint: Digest
    hardware: Hardware | None
    attributes: Mapping[str, str]
    attributes_wanted: bool
    running: Running
    fence: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """The target of a repository that an action is about, copied so that the action outlives the metadata."""

    repository: str
    path: str
    sha256: Digest
    length: int
    version: str


@dataclass(frozen=True, slots=True)
class Action:
    """One release wanted on one node. `offered` is the time when the node was first told; `end` is set once closed."""

    id: int
    node: str
    release: Release
    fence: int
    commit: Commit
    state: ActionState
    assigner: str
    requested_by: str
    reason: str
    created: datetime
    offered: datetime | None
    superseded_by: int | None
    end: "End | None"


@dataclass(frozen=True, slots=True)
class End:
    """How and when an action closed; `code` is the error's stable code where there was one."""

    at: datetime
    outcome: ActionOutcome
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """One feedback of a node about an action, as received; `body` is the structured report of our own agent."""

    action: int
    node: str
    report: str
    sequence: int
    received: datetime
    execution: str
    finished: str
    details: tuple[str, ...]
    body: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time enrolment token: only its digest is kept. `node` limits it to one name; `used_by` is the node that came."""

    id: int
    digest: Digest
    node: str
    reason: str
    created: datetime
    expires: datetime
    used_at: datetime | None
    used_by: str
