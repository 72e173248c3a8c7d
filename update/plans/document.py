"""A release plan as a file: the signed target `*.plan.json`, and back into the values of `update.plans.plan`.

1. The file is JSON without floating numbers and without a key twice, at most 1 MiB; as published its keys are sorted and
   nothing is between them, so one plan has one digest.
2. Everything is checked before anything is believed: an unknown key, a name of no member, a version range that cannot be
   read, counts above their limits are refused, each by its key. `format_version` above 1 is refused as newer than this.
3. What the engineer writes (TOML, `update.publish.plans`) has the same keys, but for `bundle`, which is a target's path there.

The form, with its defaults, is in docs/reference/release-plan.md.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from update.digest import parse_digest
from update.errors import ConfigurationError, FieldrelayError, LimitError, PlanError
from update.identity import Hardware
from update.plans.plan import (
    Accept,
    Deadlines,
    Limit,
    Lost,
    PlanBundle,
    PlanMember,
    ReleasePlan,
    Requirement,
    Selector,
)
from update.plans.ranges import MAX_TEXT_CHARACTERS, parse_condition
from update.provided import Name, check_values, refuse_newer
from update.trust.verified import MAX_HARDWARE_IDS, check_target_path

PLAN_SUFFIX: Final = ".plan.json"
MAX_PLAN_BYTES: Final = 1 << 20
MAX_MEMBERS: Final = 256
MAX_REQUIREMENTS: Final = 256
MAX_LIMITS: Final = 64
MAX_NODES: Final = 10_000
FORMAT_VERSION: Final = 1

_MAX_ATTRIBUTES = 16
_MAX_INTERLOCKS = 16
_MAX_GROUP = 1_000_000
_MAX_DEADLINE_S = 90 * 86_400
_DEFAULTS = Deadlines()
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


def _hardware_pattern(text: str) -> str:
    try:
        board = Hardware.parse(text)
        Hardware(board.board, "").accepts([text])  # compiles its pattern
    except FieldrelayError as error:
        raise ValueError(str(error)) from error
    return text


def _digest(text: str) -> str:
    try:
        return parse_digest(text)
    except FieldrelayError as error:
        raise ValueError(str(error)) from error


def _path(text: str) -> str:
    try:
        return check_target_path(text)
    except FieldrelayError as error:
        raise ValueError(str(error)) from error


def _condition(text: str) -> str:
    try:
        parse_condition(text)
    except PlanError as error:
        raise ValueError(str(error)) from error
    return text


_Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$")]
_Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS, pattern=r"^[ -~]*$")]
_Attribute = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
_Value = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)]
_Condition = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_condition)]
_HardwareId = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_hardware_pattern)]
_Interlocks = Annotated[list[Name], Field(max_length=_MAX_INTERLOCKS)]
_Seconds = Annotated[int, Field(ge=1, le=_MAX_DEADLINE_S)]
_Count = Annotated[int, Field(ge=1, le=MAX_NODES)]


class _Head(BaseModel):
    model_config = _STRICT

    name: Name
    version: _Version
    description: _Text = ""
    lost: Annotated[Lost, Field(strict=False)] = Lost.REVERT
    interlocks: _Interlocks = Field(default_factory=list)


class _Deadlines(BaseModel):
    model_config = _STRICT

    prepare_s: _Seconds = _DEFAULTS.prepare_s
    activate_s: _Seconds = _DEFAULTS.activate_s
    test_s: _Seconds = _DEFAULTS.test_s
    commit_s: _Seconds = _DEFAULTS.commit_s
    revert_s: _Seconds = _DEFAULTS.revert_s
    hold_s: _Seconds = _DEFAULTS.hold_s


class _Select(BaseModel):
    model_config = _STRICT

    nodes: Annotated[list[Name], Field(max_length=MAX_NODES)] = Field(default_factory=list)
    hardware: Annotated[list[_HardwareId], Field(max_length=MAX_HARDWARE_IDS)] = Field(default_factory=list)
    attributes: Annotated[dict[_Attribute, _Value], Field(max_length=_MAX_ATTRIBUTES)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.nodes or self.hardware or self.attributes):
            raise ValueError("selects every node of the site: give nodes, hardware or attributes")
        return self


class _Bundle(BaseModel):
    model_config = _STRICT

    path: Annotated[str, AfterValidator(_path)]
    sha256: Annotated[str, AfterValidator(_digest)]
    version: _Version


class _Member(BaseModel):
    model_config = _STRICT

    name: Name
    select: _Select
    bundle: _Bundle | None = None
    group: Annotated[int, Field(ge=0, le=_MAX_GROUP)] | None = None
    accept: list[Annotated[Accept, Field(strict=False)]] = Field(default_factory=list)
    interlocks: _Interlocks = Field(default_factory=list)
    least: Annotated[int, Field(ge=0, le=MAX_NODES)] = 1


class _Requirement(BaseModel):
    model_config = _STRICT

    need: _Condition
    given: Annotated[_Condition | None, Field(alias="while")] = None
    per: _Attribute | None = None


class _Limit(BaseModel):
    model_config = _STRICT

    members: Annotated[list[Name], Field(min_length=1, max_length=MAX_MEMBERS)]
    at_most: _Count | None = None
    keep_up: _Count | None = None
    per: _Attribute | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at_most is None) == (self.keep_up is None):
            raise ValueError("give one of at_most and keep_up")
        return self


class _Document(BaseModel):
    model_config = _STRICT

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
    plan: _Head
    members: Annotated[list[_Member], Field(min_length=1, max_length=MAX_MEMBERS)]
    deadlines: _Deadlines = Field(default_factory=_Deadlines)
    requirements: Annotated[list[_Requirement], Field(max_length=MAX_REQUIREMENTS)] = Field(default_factory=list)
    limits: Annotated[list[_Limit], Field(max_length=MAX_LIMITS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


_DOCUMENT = TypeAdapter(_Document)


def parse_plan(data: bytes, source: str) -> ReleasePlan:
    """Read a plan's file; `source` names it in messages. Errors: `PlanError`, `LimitError`, `FormatVersionError`."""
    if len(data) > MAX_PLAN_BYTES:
        raise LimitError(f"{source} has {len(data)} bytes; a release plan has at most {MAX_PLAN_BYTES}")
    try:
        values = json.loads(data.decode(), object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers or brackets beyond reason
        raise PlanError(f"{source} is no release plan: {error}") from error
    if not isinstance(values, dict):
        raise PlanError(f"{source} is no release plan: an object is needed, got {type(values).__name__}")
    return plan_of(values, source)


def plan_of(values: Mapping[str, object], source: str) -> ReleasePlan:
    """The same from values. Errors: `PlanError` with every mistake, each by its key; `FormatVersionError`."""
    refuse_newer(values, Path(source), known=FORMAT_VERSION)
    try:
        document = check_values(_DOCUMENT, values, Path(source))
    except ConfigurationError as error:
        raise PlanError(str(error)) from error
    head = document.plan
    return ReleasePlan(
        name=head.name,
        version=head.version,
        members=tuple(map(_member, document.members)),
        requirements=tuple(map(_requirement, document.requirements)),
        limits=tuple(Limit(tuple(each.members), each.at_most, each.keep_up, each.per or "") for each in document.limits),
        deadlines=Deadlines(**document.deadlines.model_dump()),
        lost=head.lost,
        interlocks=tuple(head.interlocks),
        description=head.description,
    )


def plan_bytes(plan: ReleasePlan) -> bytes:
    """The file of a plan, always the same for the same plan (rule 1); `parse_plan` is its inverse."""
    values = {
        "format_version": FORMAT_VERSION,
        "plan": {
            "name": plan.name,
            "version": plan.version,
            "description": plan.description,
            "lost": plan.lost,
            "interlocks": plan.interlocks,
        },
        "deadlines": asdict(plan.deadlines),
        "members": [_member_values(each) for each in plan.members],
        "requirements": [
            _given({"need": str(each.need), "while": None if each.given is None else str(each.given), "per": each.per or None})
            for each in plan.requirements
        ],
        "limits": [_given({**asdict(each), "per": each.per or None}) for each in plan.limits],
    }
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _member(given: _Member) -> PlanMember:
    bundle = given.bundle
    return PlanMember(
        name=given.name,
        selector=Selector(tuple(given.select.nodes), tuple(given.select.hardware), dict(given.select.attributes)),
        bundle=None if bundle is None else PlanBundle(bundle.path, parse_digest(bundle.sha256), bundle.version),
        group=given.group,
        accepts=frozenset(given.accept),
        interlocks=tuple(given.interlocks),
        least=given.least,
    )


def _requirement(given: _Requirement) -> Requirement:
    return Requirement(
        parse_condition(given.need), None if given.given is None else parse_condition(given.given), given.per or ""
    )


def _member_values(member: PlanMember) -> dict[str, object]:
    selector = member.selector
    return _given(
        {
            "name": member.name,
            "select": {"nodes": selector.nodes, "hardware": selector.hardware, "attributes": dict(selector.attributes)},
            "bundle": None if member.bundle is None else asdict(member.bundle),
            "group": member.group,
            "accept": sorted(member.accepts),
            "interlocks": member.interlocks,
            "least": member.least,
        }
    )


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _problems(document: _Document) -> Iterator[str]:
    names = [each.name for each in document.members]
    yield from (f"two members are named {name!r}" for name in sorted({each for each in names if names.count(each) > 1}))
    if all(each.bundle is None for each in document.members):
        yield "no member has a bundle: nothing would be updated"
    for number, requirement in enumerate(document.requirements):
        conditions = [parse_condition(each) for each in (requirement.need, requirement.given) if each is not None]
        members = [each.member for each in conditions]
        yield from (f"requirements[{number}]: {problem}" for problem in _strangers(members, names))
        if len(set(members)) < len(members):
            yield f"requirements[{number}] compares {members[0]!r} with itself: no order could ever keep that"
    for number, limit in enumerate(document.limits):
        yield from (f"limits[{number}]: {problem}" for problem in _strangers(limit.members, names))


def _strangers(wanted: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    known = set(names)
    yield from (f"no member is named {name!r}" for name in wanted if name not in known)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_float(text: str) -> object:
    raise ValueError(f"{text[:20]} is no whole number")
