"""The text of sw-description as a tree of plain values, from JSON or libconfig, within bounds.

SWUpdate tries libconfig and then JSON; no text is both, since JSON's outermost brace is no libconfig setting. Refused
before a parser sees them: texts above `MAX_BYTES`, nesting above `MAX_DEPTH` (the parsers recurse). Refused besides:

- a key that stands twice in one group: parsers disagree on which one counts;
- libconfig's `@include`, which would read this machine's files (SWUpdate forbids it too);
- JSON's NaN and Infinity, and numbers of thousands of digits.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

import libconf

from update.errors import DescriptionError, LimitError

MAX_BYTES: Final = 256 << 10
MAX_DEPTH: Final = 32
_JSON_MARKS = re.compile(r"\\.|[\"\[\]{}]", re.DOTALL)
_OPENING = frozenset("[{(")
_CLOSING = frozenset("]})")
_NAMING = frozenset(":=")


class Syntax(StrEnum):
    """Which of the two languages a description is written in: some values mean different things in them."""

    JSON = "json"
    LIBCONFIG = "libconfig"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text: groups are mappings, lists and arrays are sequences, the rest are str, int, float, bool or None."""

    syntax: Syntax
    root: Mapping[str, object]


def parse_document(data: bytes) -> Document:
    """Parse the whole text. Errors: `LimitError` for size and nesting, `DescriptionError` for everything else."""
    if len(data) > MAX_BYTES:
        raise LimitError(f"sw-description is {len(data)} bytes long; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DescriptionError(f"sw-description is not UTF-8 at byte {error.start}") from error
    if text.lstrip().startswith("{"):
        return Document(Syntax.JSON, _parse_json(text))
    return Document(Syntax.LIBCONFIG, _parse_libconfig(text))


def is_sequence(value: object) -> bool:
    """Whether a value of the tree is a list or array."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _parse_json(text: str) -> Mapping[str, object]:
    _check_depth(_json_structure(text))
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except ValueError as error:
        raise DescriptionError(f"sw-description is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DescriptionError("sw-description must be one JSON object")
    return value


def _json_structure(text: str) -> Iterable[str]:
    """Brackets outside of strings, in one pass whatever the text holds."""
    in_string = False
    for match in _JSON_MARKS.finditer(text):
        mark = match.group()
        if mark == '"':
            in_string = not in_string
        elif not in_string and len(mark) == 1:
            yield mark


def _check_depth(marks: Iterable[str]) -> None:
    depth = 0
    for mark in marks:
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if depth > MAX_DEPTH:
            raise LimitError(f"sw-description is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    group = dict(pairs)
    if len(group) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DescriptionError(f"sw-description sets {twice[:80]!r} twice in one group")
    return group


def _no_constant(name: str) -> NoReturn:
    raise DescriptionError(f"sw-description holds the number {name}, which JSON does not have")


def _parse_libconfig(text: str) -> Mapping[str, object]:
    try:
        tokens = list(libconf.Tokenizer("sw-description").tokenize(text))
        _check_depth(token.type for token in tokens)
        _check_settings(tokens)
        return libconf.Parser(libconf.TokenStream(tokens)).parse()
    except (libconf.ConfigParseError, ValueError) as error:
        raise DescriptionError(f"sw-description is not libconfig: {error}") from error


def _check_settings(tokens: list[libconf.Token]) -> None:
    """Refuse a setting that stands twice: libconfig does, this parser would take the last."""
    groups: list[set[str]] = [set()]
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type in _OPENING:
            groups.append(set())
        elif token.type in _CLOSING and len(groups) > 1:
            groups.pop()
        elif token.type == "name" and following is not None and following.type in _NAMING:
            if token.text in groups[-1]:
                raise DescriptionError(f"sw-description sets {token.text[:80]!r} twice in one group")
            groups[-1].add(token.text)
