r"""GLib's key files (the form of RAUC's manifests) as groups of texts, read strictly and within bounds. Pure.

    # comment
    [group]
    key=value        # leading blanks of the value do not count; \s \n \t \r \\ stand for blanks and a backslash

GLib merges a group that comes twice and takes the last of two equal keys; other readers take the first. Here both are
refused, since what was signed must mean one thing. Localized keys (`name[de]`), which no manifest has, are refused too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from update.errors import DescriptionError, LimitError

MAX_BYTES: Final = 64 << 10
MAX_GROUPS: Final = 256
MAX_KEYS: Final = 64
_GROUP = re.compile(r"\[([^\[\]\x00-\x1f\x7f]{1,200})\][ \t]*")
_KEY = re.compile(r"[A-Za-z0-9-]{1,80}", re.ASCII)
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_MEANS = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

KeyFile = Mapping[str, Mapping[str, str]]
"""Groups in their order, each with its keys and their values as written, escapes included."""


def parse_key_file(data: bytes, what: str) -> KeyFile:
    """Read a whole file. Errors: `LimitError` for sizes and counts, else `DescriptionError`; messages begin with `what`."""
    if len(data) > MAX_BYTES:
        raise LimitError(f"{what} is {len(data)} bytes long; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{what} is not UTF-8 at byte {error.start}") from error
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for number, line in _lines(text):
        where = f"{what}, line {number}"
        if line.startswith("["):
            current = _open_group(groups, line, where)
        elif current is None:
            raise DescriptionError(f"{where} stands before the first group: {line[:80]!r}")
        else:
            _add_key(current, line, where)
    return groups


def unescape(value: str, what: str) -> str:
    """The text that a value stands for; `DescriptionError` for an escape that GLib does not know."""

    def meaning(found: re.Match[str]) -> str:
        if found[1] not in _MEANS:
            raise DescriptionError(f"{what} holds the escape {found[0]!r}, which does not exist")
        return _MEANS[found[1]]

    return _ESCAPE.sub(meaning, value)


def split_list(value: str) -> tuple[str, ...]:
    """The items of a list, separated by semicolons, the last one optional."""
    return tuple(value.removesuffix(";").split(";")) if value else ()


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers from 1."""
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r").lstrip(" \t")
        if line and not line.startswith("#"):
            yield number, line


def _open_group(groups: dict[str, dict[str, str]], line: str, where: str) -> dict[str, str]:
    found = _GROUP.fullmatch(line)
    if found is None:
        raise DescriptionError(f"{where} is no name of a group: {line[:80]!r}")
    if found[1] in groups:
        raise DescriptionError(f"{where} begins the group {found[1][:80]!r} a second time")
    if len(groups) == MAX_GROUPS:
        raise LimitError(f"{where} begins more than {MAX_GROUPS} groups")
    return groups.setdefault(found[1], {})


def _add_key(group: dict[str, str], line: str, where: str) -> None:
    name, equals, value = line.partition("=")
    key = name.rstrip(" \t")
    if not equals or not _KEY.fullmatch(key):
        raise DescriptionError(f"{where} is no 'key=value': {line[:80]!r}")
    if key in group:
        raise DescriptionError(f"{where} sets {key!r} a second time in its group")
    if len(group) == MAX_KEYS:
        raise LimitError(f"{where} sets more than {MAX_KEYS} keys in one group")
    group[key] = value.lstrip(" \t")
