"""Which of two version texts is the newer one, by SWUpdate's rules and no others.

SWUpdate compares in three steps (its manual, "install-if-higher"; measured against the real binary):

1. both texts hold only digits and dots, and none of their first four numbers is above 65535: missing ones are 0, further
   ones do not count ("1.2" equals "1.2.0.0" and "1.2.0.0.9"), and dots without a number between them count once;
2. both parse as a semantic version of up to 255 of `A-Za-z0-9.+-`: major, minor and patch as numbers, then the
   pre-release by the rules of semver 2.0.0 section 11; build metadata does not count, missing fields are 0;
3. otherwise byte by byte, as strcmp does.

PEP 440 and strict semver would refuse or reorder versions that devices in the field carry.
"""

import re
from dataclasses import dataclass

_OLD_STYLE = re.compile(r"[0-9.]*", re.ASCII)
_SEMANTIC = re.compile(r"[0-9A-Za-z.+-]{0,255}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_OLD_STYLE_FIELDS = 4
_MAX_OLD_STYLE_NUMBER = (1 << 16) - 1
_LONG_MAX = (1 << 63) - 1
_MAX_NUMBER_DIGITS = 20  # 2**64 has 20: anything longer overflows, and is not worth converting


@dataclass(frozen=True, slots=True)
class _Semantic:
    """What counts of a semantic version."""

    numbers: tuple[int, ...]
    prerelease: str | None


def compare_versions(left: str, right: str) -> int:
    """Return -1, 0 or 1 as `left` is older than, equal to or newer than `right`. Never fails."""
    old_left, old_right = _old_style(left), _old_style(right)
    if old_left is not None and old_right is not None:
        return _order(old_left, old_right)
    semantic_left, semantic_right = _semantic(left), _semantic(right)
    if semantic_left is not None and semantic_right is not None:
        numbers = _order(semantic_left.numbers, semantic_right.numbers)
        return numbers or _compare_prerelease(semantic_left.prerelease, semantic_right.prerelease)
    return _order(_bytes(left), _bytes(right))


def _bytes(text: str) -> tuple[int, ...]:
    return tuple(text.encode("utf-8", "surrogatepass"))


def _order(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    return (left > right) - (left < right)


def _number(text: str) -> int:
    """The number as strtol gives it: saturated, 0 for no digits."""
    digits = text.lstrip("0")
    return _LONG_MAX if len(digits) > _MAX_NUMBER_DIGITS else min(int(digits or "0"), _LONG_MAX)


def _old_style(text: str) -> tuple[int, ...] | None:
    """The four numbers, or None."""
    if not _OLD_STYLE.fullmatch(text):
        return None
    numbers = [_number(field) for field in text.split(".") if field][:_OLD_STYLE_FIELDS]
    if any(number > _MAX_OLD_STYLE_NUMBER for number in numbers):
        return None
    return tuple(numbers + [0] * (_OLD_STYLE_FIELDS - len(numbers)))


def _semantic(text: str) -> _Semantic | None:
    """Parse, or None: at most four fields are looked at, and each must be a number or empty."""
    if not _SEMANTIC.fullmatch(text):
        return None
    core, _, _build = text.partition("+")
    core, dash, prerelease = core.partition("-")
    fields = core.split(".")[:4]
    if not all(field == "" or _NUMBER.fullmatch(field) for field in fields):
        return None
    numbers = [_as_int(_number(field)) for field in fields[:3]]
    return _Semantic(tuple(numbers + [0] * (3 - len(numbers))), prerelease if dash else None)


def _as_int(number: int) -> int:
    """A C long stored in an int: the low 32 bits, signed."""
    low = number & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def _compare_prerelease(left: str | None, right: str | None) -> int:
    """A pre-release is older than its release; identifiers compare numerically or as text, numbers first."""
    if left is None or right is None:
        return (left is None) - (right is None)
    left_parts, right_parts = left.split("."), right.split(".")
    for mine, other in zip(left_parts, right_parts, strict=False):
        result = _compare_identifier(mine, other)
        if result:
            return result
    return _order((len(left_parts),), (len(right_parts),))


def _compare_identifier(left: str, right: str) -> int:
    left_is_number, right_is_number = (part == "" or bool(_NUMBER.fullmatch(part)) for part in (left, right))
    if left_is_number != right_is_number:
        return -1 if left_is_number else 1
    if left_is_number:
        return _order((_as_int(_number(left)),), (_as_int(_number(right)),))
    return _order(_bytes(left), _bytes(right))
