"""What the gateway remembers, as pure values: queries return them, decisions take them, nothing here can do I/O.

Two facts are kept apart for every node: what runs (`Node.running`, told by the node) and what is wanted (`Action`, decided
by the node's one assigner). Action ids are 32-bit positive integers because clients parse them as C `int`
(hawkBit DDI clients clamp larger ones and lose the result).

What a node says is not yet what is true: `Action.installed` is when it said that it had installed, `Action.end` is set only
when the outcome is known (`gateway.fleet.judgement`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from update.digest import Digest
from update.identity import Hardware
from update.plans.plan import Lost
from update.trust.verified import Provenance

MAX_ACTION_ID = 2**31 - 1
SITE = "site"


class ClientKind(StrEnum):
    """What speaks for the node: views of the same action differ by it."""

    AGENT = "agent"
    SWUPDATE = "swupdate"
    RAUC = "rauc"
    ZEPHYR = "zephyr"


class ActionState(StrEnum):
    """The life of an action; `waiting` is for a confirmation by the node or its people."""

    WAITING = "waiting"
    OPEN = "open"
    CANCELLING = "cancelling"
    CLOSED = "closed"


class ActionOutcome(StrEnum):
    """How an action ended, as the gateway books it; `unverified` is installed, and nothing could prove that it runs."""

    SUCCESS = "success"
    UNVERIFIED = "unverified"
    DOWNLOADED = "downloaded"
    FAILURE = "failure"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    INCONSISTENT = "inconsistent"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    TIMED_OUT = "timed-out"


class Handling(StrEnum):
    """How an action is meant, in hawkBit's words; `time-forced` is soft before its time and forced from then on."""

    FORCED = "forced"
    SOFT = "soft"
    TIME_FORCED = "time-forced"
    DOWNLOAD_ONLY = "download-only"


class Commit(StrEnum):
    """How far a node may go (one decision for many devices), as `update.wire.assignment.Commit` tells it."""

    PREPARE = "prepare"
    HOLD = "hold"
    COMMIT = "commit"
    ABORT = "abort"


class Stage(StrEnum):
    """Where our own agent waits for a decision, by its word; empty while it does not wait."""

    NONE = ""
    PREPARED = "prepared"
    HOLDING = "holding"


@dataclass(frozen=True, slots=True)
class Hold:
    """How long a node keeps its trial without hearing from the gateway (0: without limit), and what it does then."""

    hold_s: int
    lost: Lost


@dataclass(frozen=True, slots=True)
class Running:
    """What a node says it runs; empty strings where it has not said."""

    version: str = ""
    sha256: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class AutoConfirm:
    """Who has confirmed, beforehand, whatever will be wanted on a node."""

    initiator: str
    remark: str
    activated: datetime


@dataclass(frozen=True, slots=True)
class Node:
    """A device that polls the gateway; `fence` is the newest one given out for it.

    `kind_fixed`: the kind was set by people, and is no longer guessed. `token` is the digest of the node's own token, None
    where it has none. `accepts` is the weakest provenance that it is offered. `boot_id` is the newest boot that the node
    told of, empty where it told of none.
    """

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
    kind_fixed: bool = False
    token: Digest | None = None
    accepts: Provenance = Provenance.TUF
    auto_confirm: AutoConfirm | None = None
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The bundle that an action is about, copied so that the action outlives the metadata.

    `provenance` is `tuf` for a target of the repository; `cms` for a bundle that only its own signature vouches for, which
    was verified against the authorities of that repository.
    """

    repository: str
    path: str
    sha256: Digest
    length: int
    version: str
    provenance: Provenance = Provenance.TUF


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """What the open actions of `nodes` alike want: the bundle `sha256`, of nodes of this kind that run this."""

    repository: str
    path: str
    sha256: Digest
    kind: ClientKind
    running: Running
    nodes: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How and when an action may run. All times None: at once, and for as long as it takes.

    `forced_at` is when a time-forced action becomes forced; from `opens` to `closes` is its maintenance window; what has not
    ended at `deadline` ends as timed out.
    """

    handling: Handling = Handling.FORCED
    forced_at: datetime | None = None
    opens: datetime | None = None
    closes: datetime | None = None
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """One release wanted on one node. `offered` is the time when the node was first told; `end` is set once closed.

    `source` is the id that the assigner knows it by, empty for orders given here. `offers` counts how often that was
    noted, `installed` is when it first said that it had installed, and `boot_id` the boot in which it installs.
    `hold` is there where it is part of a coordinated release; `stage` is where the node waits then, and said so at `staged`.
    """

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
    terms: Terms = Terms()
    source: str = ""
    offers: int = 0
    installed: datetime | None = None
    boot_id: str = ""
    hold: Hold | None = None
    stage: Stage = Stage.NONE
    staged: datetime | None = None


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


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of one content that stock clients ask for, beside the SHA-256 that names it."""

    sha256: Digest
    sha1: str
    md5: str


class Matter(StrEnum):
    """What a message to an upstream is about."""

    FEEDBACK = "feedback"
    CANCEL_FEEDBACK = "cancel-feedback"
    INSTALLED = "installed"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to an upstream about one node, stored before it is sent; `body` is in the upstream's own words.

    `source` is the upstream's id of the action; `final` ends it there. `report` identifies the message: the same one is
    stored once. `attempts` and `trouble` tell of sending so far; it is not sent again before `not_before`.
    """

    id: int
    upstream: str
    node: str
    source: str
    matter: Matter
    final: bool
    report: str
    body: Mapping[str, object]
    created: datetime
    attempts: int = 0
    not_before: datetime | None = None
    delivered: datetime | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one node stands with one upstream: what was last told of its attributes (a digest), and when to ask again."""

    upstream: str
    node: str
    attributes: str
    next_poll: datetime | None
