"""What the process that reads media and the gateway tell each other, through files in the store's `intake` folder.

Two files for every medium, each with one writer, each a `Journal` (replaced as a whole, with a checksum):

    intake/<medium>/state.json    by whoever reads the medium: `MediumState`
    intake/<medium>.answer.json   by the gateway: `Answer`, what became of the content and of the nodes

Both are hints for people and for signals. Neither proves anything: the gateway verifies what it adopts. Readers ignore members
that they do not know, and refuse what is too long or of another type.
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
MAX_NODES: Final = 2000
_T = TypeVar("_T")
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
    """One thing on a medium. `name` is for people only: where it lay. `size_bytes` is what of it had to be copied."""

    kind: Kind
    name: _Line
    verdict: Verdict
    repository: _Line = ""
    version: _Line = ""
    size_bytes: _Count = 0
    sha256: _Sha256 | None = None
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


class Course(StrEnum):
    """What the gateway does with what was copied."""

    ADOPTING = "adopting"
    UPDATING = "updating"
    DONE = "done"
    FAILED = "failed"


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """One node that the content is for: what is wanted, what runs, and how it ended (empty while it goes on)."""

    node: _Line
    wanted: _Line
    runs: _Line = ""
    outcome: _Line = ""
    code: _Line = ""
    message: _Message = ""


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway says of one medium: `done` of `total` nodes have ended. `offer` is the digest of the offer it answers."""

    medium: _Line
    course: Course
    since: _Count
    offer: _Line = ""
    done: _Count = 0
    total: _Count = 0
    code: _Line = ""
    message: _Message = ""
    contents: Annotated[tuple[Content, ...], Field(max_length=MAX_CONTENTS)] = ()
    nodes: Annotated[tuple[NodeResult, ...], Field(max_length=MAX_NODES)] = ()


_STATE, _ANSWER = TypeAdapter(MediumState), TypeAdapter(Answer)


def state_to_mapping(state: MediumState) -> Mapping[str, JsonValue]:
    """For `Journal.write`."""
    return cast("Mapping[str, JsonValue]", _STATE.dump_python(state, mode="json"))


def state_from_mapping(mapping: Mapping[str, JsonValue]) -> MediumState:
    """What `Journal.read` gave. Errors: `CorruptError` for what is no state of a medium."""
    return _checked(_STATE, mapping, "a medium's state")


def answer_to_mapping(answer: Answer) -> Mapping[str, JsonValue]:
    """For `Journal.write`."""
    return cast("Mapping[str, JsonValue]", _ANSWER.dump_python(answer, mode="json"))


def answer_from_mapping(mapping: Mapping[str, JsonValue]) -> Answer:
    """What `Journal.read` gave. Errors: `CorruptError` for what is no answer."""
    return _checked(_ANSWER, mapping, "the gateway's answer")


def _checked(adapter: TypeAdapter[_T], mapping: Mapping[str, JsonValue], what: str) -> _T:
    try:
        return adapter.validate_python(mapping)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptError(f"this is not {what}: {where}: {first['msg']}") from error
