"""What is written down about an update: the journal's record and the reports, as plain values.

The journal holds one `Entry`. It is replaced as a whole on entering every state (`update.store.journal`), and after the
last state it stays as the memory of the last outcome, of the highest fencing token and of what each slot holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from node_agent.states import Outcome, State, check_transition
from update.digest import Digest
from update.errors import CorruptError
from update.store.journal import JsonValue
from update.wire.assignment import MAX_HOLD_S, Commit, Lost

_Text = Annotated[str, Field(max_length=4096)]
_Sha256 = Annotated[Digest, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]

MAX_MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Release:
    """One bundle: where it came from and its two signed numbers. `path` is the target's, or the file's name.

    `bundle` is what the device will know it by (`drivers.driver.bundle_identity`), None while that cannot be known yet.
    `content` is the digest of what was read back from a slot with one part.
    """

    repository: _Text
    path: _Text
    sha256: _Sha256
    length: _Count
    version: _Text
    provenance: _Text
    release_counter: _Count = 0
    security_counter: _Count = 0
    bundle: _Sha256 | None = None
    content: _Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The journal's record.

    `tries` counts the entries into `state`; `cancel` is the cancellation that ended the update, where one did; the bytes are
    those of the write that succeeded.
    `held` says what each slot holds as far as this agent wrote and verified it, by slot name.
    `commit` is the newest decision that this agent has heard of; `together` says that it began as one of several devices. A
    trial is held for `hold_s` seconds without hearing of it, until `hold_until` (milliseconds since the epoch), then `lost`
    says what is done.
    """

    state: State = State.IDLE
    tries: _Count = 0
    action: _Text = ""
    fence: _Count = 0
    highest_fence: _Count = 0
    release: Release | None = None
    slot_from: _Text = ""
    slot_to: _Text = ""
    downloaded_bytes: _Count = 0
    reused_bytes: _Count = 0
    outcome: Outcome | None = None
    code: _Text = ""
    message: _Text = ""
    cancel: _Text = ""
    held: Annotated[tuple[tuple[_Text, Release], ...], Field(max_length=64)] = ()
    commit: Commit = Commit.COMMIT
    together: bool = False
    hold_s: Annotated[int, Field(ge=0, le=MAX_HOLD_S)] = 0
    hold_until: _Count = 0
    lost: Lost = Lost.REVERT

    def enter(self, state: State) -> "Entry":
        """The same update in its next state, entered for the first time; `StateError` where the table has no such step."""
        check_transition(self.state, state)
        return replace(self, state=state, tries=1)

    def again(self) -> "Entry":
        """The same state, entered once more."""
        return replace(self, tries=self.tries + 1)

    def ended(self, outcome: Outcome, code: str = "", message: str = "") -> "Entry":
        """The same record with an outcome; the message is cut to what a report carries."""
        return replace(self.because(code, message), outcome=outcome)

    def because(self, code: str, message: str) -> "Entry":
        """The same record with the reason of what is done now."""
        return replace(self, code=code, message=message[:MAX_MESSAGE_CHARACTERS])

    def in_slot(self, slot: str) -> Release | None:
        """What `slot` holds, if this agent wrote it."""
        return dict(self.held).get(slot)

    def holding(self, slot: str, release: Release | None) -> "Entry":
        """The same record knowing that `slot` holds `release` (None: nothing that may be relied on)."""
        kept = tuple(pair for pair in self.held if pair[0] != slot)
        return replace(self, held=kept if release is None else (*kept, (slot, release)))


@dataclass(frozen=True, slots=True)
class Report:
    """What the assigner is told. `id` and `sequence` let a receiver drop doubles and see gaps; a result ends the action.

    `slot` is the one that runs, with what it holds where that is known.
    """

    id: _Text
    action: _Text
    fence: _Count
    state: State
    sequence: _Count = 0
    outcome: Outcome | None = None
    code: _Text = ""
    message: _Text = ""
    version: _Text = ""
    done: _Count = 0
    total: _Count = 0
    slot: _Text = ""
    slot_sha256: _Text = ""
    downloaded_bytes: _Count = 0
    reused_bytes: _Count = 0
    time_ms: _Count = 0
    answers: _Text = ""  # the cancellation that this answers, where it is one

    @property
    def final(self) -> bool:
        """Whether this report ends the action: such a report is never dropped."""
        return self.outcome is not None or bool(self.answers)


_ENTRY = TypeAdapter(Entry)
_REPORTS = TypeAdapter(tuple[Report, ...])


def entry_to_mapping(entry: Entry) -> Mapping[str, JsonValue]:
    """The journal's form."""
    mapping: dict[str, JsonValue] = _ENTRY.dump_python(entry, mode="json")
    return mapping


def journal_version(entry: Entry) -> int:
    """The oldest journal version whose readers act rightly on `entry`: version 1 would keep a trial without the decision."""
    return 2 if entry.together and entry.state not in {State.IDLE, State.REPORTING} else 1


def entry_from_mapping(mapping: Mapping[str, JsonValue] | None) -> Entry:
    """Read the journal's form, None for a journal never written; `CorruptError` for one that no release wrote."""
    if mapping is None:
        return Entry()
    try:
        return _ENTRY.validate_python(dict(mapping))
    except ValidationError as error:
        raise CorruptError(
            f"the update journal does not hold a record of this agent ({_first(error)}); see `update rollback`"
        ) from error


def reports_to_list(reports: tuple[Report, ...]) -> list[JsonValue]:
    """The queue's form."""
    values: list[JsonValue] = _REPORTS.dump_python(reports, mode="json")
    return values


def reports_from_list(values: object) -> tuple[Report, ...]:
    """Read the queue's form; `CorruptError` for anything else."""
    try:
        return _REPORTS.validate_python(values)
    except ValidationError as error:
        raise CorruptError(f"the queue of reports is damaged ({_first(error)})") from error


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
