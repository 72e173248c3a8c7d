"""What a simulated hawkBit keeps, and the rules of its actions (DDI v1; `DdiRootController`, `HawkbitSecurityProperties.Dos`).

- Of a target's open actions the newest is shown; a newer assignment has the older ones cancelled first.
- An action takes so many entries, each so many messages, and each 512 characters of a message count once. What is beyond is
  refused, the last word too.
- `closed` with `success` or `none` finishes an action, with `failure` it is an error; `downloaded` finishes one that is for
  download only.
- A confirmation that is denied goes on waiting.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

PIECE_CHARACTERS: Final = 512
_CLOSING: Final = {"success": "finished", "none": "finished", "failure": "error"}
_ENTRY: Final = {"download": "download", "downloaded": "downloaded", "rejected": "warning", "canceled": "canceled"}
_ENDS: Final = frozenset({"finished", "error", "canceled"})


class RefusedError(Exception):
    """What the server answers instead: an HTTP status and hawkBit's `errorCode`."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Kind(StrEnum):
    """How urgent an assignment is."""

    FORCED = "forced"
    SOFT = "soft"
    DOWNLOAD_ONLY = "downloadonly"


@dataclass(frozen=True, slots=True)
class Quotas:
    """hawkBit's own defaults."""

    entries: int = 1000
    messages: int = 50
    attributes: int = 100
    value_characters: int = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an action's history."""

    type: str
    messages: list[str | None]


@dataclass(slots=True)
class SimulatedFile:
    """An artifact."""

    filename: str
    content: bytes

    def digests(self) -> dict[str, str]:
        """By their names."""
        return {name: hashlib.new(name, self.content, usedforsecurity=False).hexdigest() for name in ("md5", "sha1", "sha256")}


@dataclass(slots=True)
class SimulatedSet:
    """A distribution set with its files."""

    id: int
    name: str
    version: str
    files: list[SimulatedFile]


@dataclass(slots=True)
class SimulatedAction:
    """One assignment; `stage` is running, waiting (for a confirmation) or canceling, and then how it ended."""

    id: int
    target: str
    wanted: SimulatedSet
    kind: Kind
    quotas: Quotas
    closed_window: bool = False
    stage: str = "running"
    entries: list[Entry] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.stage not in _ENDS

    @property
    def status(self) -> str:
        """HawkBit's word in its management API."""
        return "pending" if self.active else "finished"

    def note(self, kind: str, messages: list[str]) -> None:
        """Add an entry. `RefusedError` at a quota."""
        pieces = sum(max(1, -(-len(text) // PIECE_CHARACTERS)) for text in messages)
        if len(self.entries) >= self.quotas.entries or pieces > self.quotas.messages:
            raise RefusedError(403, "hawkbit.server.error.quota.tooManyEntries")
        self.entries.append(Entry(kind, list(messages)))

    def feedback(self, execution: str, finished: str, details: list[str]) -> None:
        """A node's word about it."""
        kind = _CLOSING[finished] if execution == "closed" else _ENTRY.get(execution, "running")
        if kind == "downloaded" and self.kind is Kind.DOWNLOAD_ONLY:
            kind = "finished"
        self.note(kind, details)
        if kind in _ENDS:
            self.stage = kind

    def cancel_feedback(self, execution: str, finished: str, details: list[str]) -> None:
        """A node's word about its cancellation."""
        if self.stage != "canceling":
            raise RefusedError(405, "hawkbit.server.error.rest.action.notcancelable")
        if execution == "rejected":
            self.note("cancel_rejected", details)
            self.stage = "running"
        elif execution == "closed":
            self.note("error" if finished == "failure" else "canceled", details)
            self.stage = self.entries[-1].type
        else:
            self.note("running", details)


@dataclass(slots=True)
class SimulatedTarget:
    """A device; `update_status` as hawkBit's management API has it."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    attributes_wanted: bool = True
    update_status: str = "registered"
    auto_confirm: bool = False
    installed: tuple[str, str] | None = None


@dataclass(slots=True)
class Holdings:
    """Everything that the server keeps, and its operator's verbs."""

    quotas: Quotas = field(default_factory=Quotas)
    needs_confirmation: bool = False
    targets: dict[str, SimulatedTarget] = field(default_factory=dict)
    sets: dict[int, SimulatedSet] = field(default_factory=dict)
    actions: dict[int, SimulatedAction] = field(default_factory=dict)
    first_action: int = 1

    def known(self, name: str) -> SimulatedTarget:
        """A target; registered when it is new."""
        return self.targets.setdefault(name, SimulatedTarget(name))

    def publish(self, name: str, version: str, filename: str, content: bytes) -> int:
        """A set of one file; its number."""
        return self.publish_all(name, version, {filename: content})

    def publish_all(self, name: str, version: str, files: Mapping[str, bytes]) -> int:
        """A set of several files; its number."""
        number = len(self.sets) + 1
        made = [SimulatedFile(filename, content) for filename, content in files.items()]
        self.sets[number] = SimulatedSet(number, name, version, made)
        return number

    def assign(self, target: str, number: int, kind: Kind = Kind.FORCED, *, closed_window: bool = False) -> int:
        """Assign a set; the number of the action."""
        known = self.known(target)
        for older in self.active(target):
            older.stage = "canceling"
        waiting = self.needs_confirmation and not known.auto_confirm
        made = SimulatedAction(
            max(self.actions, default=self.first_action - 1) + 1, target, self.sets[number], kind, self.quotas, closed_window
        )
        made.stage = "waiting" if waiting else "running"
        made.note("wait_for_confirmation" if waiting else "running", [])
        self.actions[made.id] = made
        known.update_status = "pending"
        return made.id

    def cancel(self, number: int) -> None:
        """Ask the device to stop."""
        self.actions[number].stage = "canceling"
        self.actions[number].note("canceling", [])

    def active(self, target: str) -> list[SimulatedAction]:
        """The open actions of a target, what is to be cancelled first, then by age."""
        found = [action for action in self.actions.values() if action.target == target and action.active]
        return sorted(found, key=lambda action: (action.stage != "canceling", action.id))

    def of(self, target: str, number: str) -> SimulatedAction:
        """An action of a target; 404 for any other."""
        found = self.actions.get(int(number)) if number.isdecimal() else None
        if found is None or found.target != target:
            raise RefusedError(404, "hawkbit.server.error.repo.entitiyNotFound")
        return found

    def settle(self, action: SimulatedAction) -> None:
        """What the end of an action says about its target."""
        target = self.known(action.target)
        if action.stage == "finished" and action.kind is not Kind.DOWNLOAD_ONLY:
            target.installed = (action.wanted.name, action.wanted.version)
            target.attributes_wanted = True
        if not self.active(action.target):
            target.update_status = {"error": "error"}.get(action.stage, "in_sync")

    def describe(self, target: str, mode: str, data: dict[str, str]) -> None:
        """What a target says of itself; all of it, or nothing. `RefusedError` at a quota."""
        known = self.known(target)
        kept = {} if mode == "replace" else dict(known.attributes)
        kept = {key: value for key, value in kept.items() if mode != "remove" or key not in data}
        kept.update({} if mode == "remove" else data)
        if len(kept) > self.quotas.attributes:
            raise RefusedError(403, "hawkbit.server.error.quota.tooManyEntries")
        if any(len(text) > self.quotas.value_characters for pair in data.items() for text in pair):
            raise RefusedError(400, "hawkbit.server.error.repo.invalidTargetAttributes")
        known.attributes, known.attributes_wanted = kept, False
