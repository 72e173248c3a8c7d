"""What the process that reads media and the gateway tell each other, through files in the store's folder `intake`.

One writer for each file; each is a `Journal` (replaced as a whole, with a checksum), but for the bytes themselves:

    <medium>/state.json             by the reader: `MediumState`, what people see of it
    <medium>/offer.json             by the reader: `Offer`, what was recognised
    <medium>/content/<want>         by the reader: the bytes of one want; complete once it has that name
    <medium>/content/<want>.refused by the reader: `Refusal`, why they cannot be had
    <medium>.wants.json             by the gateway: `Wants`, what it asks for
    <medium>.answer.json            by the gateway: `Answer`, what became of the content and of the nodes

Nothing here proves anything: the gateway verifies whatever it takes. Readers of these files ignore members that they do not know,
and refuse what is too long or of another type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from update.digest import Digest
from update.errors import CorruptError
from update.store.journal import JsonValue

MAX_CONTENTS: Final = 1000
MAX_WANTS: Final = 8
MAX_RANGES: Final = 1000
WANT_BYTES: Final = 16 << 20
"""The most that one want may bring: it lies in `intake` until the gateway has taken it."""
MAX_NODES: Final = 2000
_Line = Annotated[str, Field(max_length=300)]
_Message = Annotated[str, Field(max_length=1000)]
_Count = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
_Sha256 = Annotated[Digest, Field(pattern=r"^[0-9a-f]{64}$")]
_IGNORE = ConfigDict(extra="ignore")


class Stage(StrEnum):
    """How far a medium is; `safe`: it may be pulled out, `gone`: it was."""

    FOUND = "found"
    CHECKING = "checking"
    COPYING = "copying"
    SAFE = "safe"
    NOTHING_NEW = "nothing-new"
    IGNORED = "ignored"
    FAILED = "failed"
    GONE = "gone"


class Kind(StrEnum):
    """What a medium may hold."""

    REPOSITORY = "repository"
    BUNDLE = "bundle"
    REQUEST = "request"


class Verdict(StrEnum):
    """What became of it: `known` was here already."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    REFUSED = "refused"


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One thing on a medium. `name` is for people only: where it lay. `size_bytes` is what of it had to be copied.

    `asks` is what a request that was accepted asks for.
    """

    kind: Kind
    name: _Line
    verdict: Verdict
    repository: _Line = ""
    version: _Line = ""
    size_bytes: _Count = 0
    sha256: _Sha256 | None = None
    asks: Annotated[tuple[_Line, ...], Field(max_length=10)] = ()
    code: _Line = ""
    message: _Message = ""


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class MediumState:
    """One medium as whoever reads it sees it. `since` is when `stage` was entered, in seconds since the epoch.

    `done_bytes` of `total_bytes` are copied. `code` and `message` tell why it failed or is ignored.
    """

    medium: _Line
    label: _Line
    stage: Stage
    since: _Count
    done_bytes: _Count = 0
    total_bytes: _Count = 0
    code: _Line = ""
    message: _Message = ""
    contents: Annotated[tuple[Content, ...], Field(max_length=MAX_CONTENTS)] = ()


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """Something on a medium: `number` is how a want names it, `name` is for people only, `size_bytes` of a single file."""

    number: Annotated[int, Field(ge=0, lt=MAX_CONTENTS)]
    kind: Kind
    name: _Line
    size_bytes: _Count = 0


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What was recognised on a medium. `visit` differs each time that it is plugged in; wants of an earlier visit are void.

    `label` is for people. `left_in`: it was there already when its reader started, so nobody has plugged it in to have it tried
    once more.
    """

    medium: _Line
    visit: _Line
    label: _Line = ""
    left_in: bool = False
    found: Annotated[tuple[Recognised, ...], Field(max_length=MAX_CONTENTS)] = ()
    writable: bool = False


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Bytes that the gateway asks for, at most `WANT_BYTES`: of a single file (`path` empty), or of one below a repository.

    `ranges` are (start, length) in bytes. None of them, and `length` given: the whole file if it has at most that many bytes.
    """

    id: _Count
    number: Annotated[int, Field(ge=0, lt=MAX_CONTENTS)]
    path: Annotated[tuple[_Line, ...], Field(max_length=16)] = ()
    ranges: Annotated[tuple[tuple[_Count, _Count], ...], Field(max_length=MAX_RANGES)] = ()
    length: Annotated[int, Field(ge=0, le=WANT_BYTES)] = 0


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """All that is wanted now, in this order; what is no longer listed is not wanted any more."""

    visit: _Line
    wants: Annotated[tuple[Want, ...], Field(max_length=MAX_WANTS)] = ()


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a want cannot be brought."""

    code: _Line
    message: _Message


class Course(StrEnum):
    """What the gateway does with what was copied."""

    ADOPTING = "adopting"
    UPDATING = "updating"
    DONE = "done"
    FAILED = "failed"


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """One node that the content is for: what is wanted, what runs, and how it ended (empty while it goes on).

    `action` is the number of what was ordered for it, 0 where it was refused at once.
    """

    node: _Line
    wanted: _Line
    action: _Count = 0
    runs: _Line = ""
    outcome: _Line = ""
    code: _Line = ""
    message: _Message = ""


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway says of one medium: `done` of `total` nodes have ended. `visit` is that of the offer it answers.

    `taken_bytes` of `wanted_bytes` have been brought and taken so far. `reported` is the course of which a report was composed
    last, empty before the first; `stale` is the operator's reason where the medium was accepted past its expiry.
    """

    medium: _Line
    course: Course
    since: _Count
    visit: _Line = ""
    done: _Count = 0
    total: _Count = 0
    taken_bytes: _Count = 0
    wanted_bytes: _Count = 0
    reported: _Line = ""
    stale: _Line = ""
    code: _Line = ""
    message: _Message = ""
    contents: Annotated[tuple[Content, ...], Field(max_length=MAX_CONTENTS)] = ()
    nodes: Annotated[tuple[NodeResult, ...], Field(max_length=MAX_NODES)] = ()


_Record = TypeVar("_Record", MediumState, Offer, Wants, Refusal, Answer)


def to_mapping(record: MediumState | Offer | Wants | Refusal | Answer) -> Mapping[str, JsonValue]:
    """For `Journal.write`."""
    return cast("Mapping[str, JsonValue]", TypeAdapter(type(record)).dump_python(record, mode="json"))


def from_mapping(kind: type[_Record], mapping: Mapping[str, JsonValue]) -> _Record:
    """What `Journal.read` gave, as a record of this kind. Errors: `CorruptError` for what is none."""
    try:
        return TypeAdapter(kind).validate_python(mapping)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptError(f"this is no {kind.__name__} of a medium: {where}: {first['msg']}") from error
