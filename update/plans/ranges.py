"""Version ranges and what they are said of, as a release plan writes them: `motor >= 2.1, < 3`.

    condition  = name range
    range      = comparison *("," comparison)             all of them must hold
    comparison = (">=" | ">" | "<=" | "<") version
               | ("==" | "!=") version [".*"]

1. Versions are compared as SWUpdate compares them (`update.version`): `== 1.2` admits 1.2.0, `>= 3` does not admit 3.0-rc.1.
2. `< 3` does not admit 3.0-rc.1 either, although it is older than 3: whoever writes `< 3` means that nothing of 3 is there.
   A bound that is a pre-release itself (`< 3.0-rc.2`) is compared as it stands.
3. `== 5.*` compares the leading fields, missing ones being 0 and everything from the first `-` or `+` left out.
4. Texts are limited before they are parsed: 300 characters, 8 comparisons, versions of 64 of `A-Za-z0-9._+~-`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from update.errors import ConfigurationError, PlanError
from update.identity import check_name
from update.version import compare_versions

MAX_TEXT_CHARACTERS: Final = 300
MAX_COMPARISONS: Final = 8

_CONDITION = re.compile(r"\s*([A-Za-z0-9._-]{1,64})\s*([<>=!].*)", re.ASCII | re.DOTALL)
_COMPARISON = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([A-Za-z0-9][A-Za-z0-9._+~-]{0,63}?)(\.\*)?\s*", re.ASCII)
_SUFFIX = re.compile(r"[-+]")


class Operator(StrEnum):
    """How a version is compared with the bound."""

    AT_LEAST = ">="
    ABOVE = ">"
    AT_MOST = "<="
    BELOW = "<"
    EQUAL = "=="
    OTHER = "!="


_HOLDS: Final[Mapping[Operator, frozenset[int]]] = {
    Operator.AT_LEAST: frozenset({0, 1}),
    Operator.ABOVE: frozenset({1}),
    Operator.AT_MOST: frozenset({-1, 0}),
    Operator.BELOW: frozenset({-1}),
    Operator.EQUAL: frozenset({0}),
    Operator.OTHER: frozenset({-1, 1}),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One bound; `prefix`: only the fields that `version` has count (`5.*`)."""

    operator: Operator
    version: str
    prefix: bool = False

    def admits(self, version: str) -> bool:
        """Whether `version` keeps the bound (rules 1 to 3)."""
        if self.prefix:
            return _begins_with(version, self.version) is (self.operator is Operator.EQUAL)
        if self.operator is Operator.BELOW and "-" not in self.version:
            version = _core(version)
        return compare_versions(version, self.version) in _HOLDS[self.operator]

    def __str__(self) -> str:
        return f"{self.operator} {self.version}{'.*' if self.prefix else ''}"


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Bounds that must all be kept."""

    comparisons: tuple[Comparison, ...]

    def admits(self, version: str) -> bool:
        """Whether `version` lies in the range."""
        return all(each.admits(version) for each in self.comparisons)

    def __str__(self) -> str:
        return ", ".join(map(str, self.comparisons))


@dataclass(frozen=True, slots=True)
class Condition:
    """A range said of every device of a member."""

    member: str
    range: VersionRange

    def __str__(self) -> str:
        return f"{self.member} {self.range}"


def parse_condition(text: str) -> Condition:
    """Read `motor >= 2.1, < 3`; `PlanError` says what cannot be read. `str` of the result is the inverse."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise PlanError(f"a condition has {len(text)} characters, at most {MAX_TEXT_CHARACTERS} are read: {text[:40]!r}…")
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise PlanError(f"a condition is written 'MEMBER >= 2.1, < 3': got {text[:80]!r}")
    try:
        member = check_name(found[1], "a member")
    except ConfigurationError as error:
        raise PlanError(str(error)) from error
    return Condition(member, parse_range(found[2]))


def parse_range(text: str) -> VersionRange:
    """Read `>= 2.1, < 3`; `PlanError` says what cannot be read. `str` of the result is the inverse."""
    pieces = text.split(",", MAX_COMPARISONS)
    if len(text) > MAX_TEXT_CHARACTERS or len(pieces) > MAX_COMPARISONS:
        raise PlanError(f"a version range holds up to {MAX_COMPARISONS} comparisons: got {text[:80]!r}…")
    return VersionRange(tuple(map(_comparison, pieces)))


def _comparison(text: str) -> Comparison:
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise PlanError(f"a comparison is one of {', '.join(Operator)} and a version of up to 64 characters: got {text[:80]!r}")
    operator, prefix = Operator(found[1]), found[3] is not None
    if prefix and operator not in {Operator.EQUAL, Operator.OTHER}:
        raise PlanError(f"'.*' goes with == and != only: got {text[:80]!r}; leave it out")
    if prefix and _core(found[2]) != found[2]:
        raise PlanError(f"'.*' stands behind whole fields, not behind a pre-release or build: got {text[:80]!r}")
    return Comparison(operator, found[2], prefix)


def _core(version: str) -> str:
    """Without pre-release and build."""
    return _SUFFIX.split(version, maxsplit=1)[0]


def _begins_with(version: str, prefix: str) -> bool:
    wanted, fields = prefix.split("."), _core(version).split(".")
    fields += ["0"] * (len(wanted) - len(fields))
    return all(map(_same_field, fields, wanted))


def _same_field(left: str, right: str) -> bool:
    if left.isdecimal() and right.isdecimal():
        return (left.lstrip("0") or "0") == (right.lstrip("0") or "0")
    return left == right
