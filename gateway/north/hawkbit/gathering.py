"""How the lines of nodes become messages that hawkBit takes, without a line lost that it would have taken; pure.

1. hawkBit takes 50 lines in a message (quota `maxMessagesPerActionStatus`) and 512 UTF-16 units in a line. A longer line goes
   as several, one after the other; none is cut.
2. A message is filled up before another is begun, as long as its sending has not begun.
3. The last message that an action may have is kept back until it ends. It holds the newest lines; once it is full, lines leave
   it, and its first line says how many. Who looks for the reason of a failure needs the last lines and those that tell of
   errors: of what is older than the last ten lines, the oldest that tells of none leaves first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

MOST_LINES: Final = 50
LONGEST_LINE: Final = 500
_LAST = 10
_LEFT_OUT = "left_out"
_BEYOND_16_BITS = 2
_TELLS_OF_AN_ERROR = re.compile(
    r"error|fail|fatal|cannot|could not|unable|invalid|corrupt|mismatch|denied|refused|no such|not found|no space", re.IGNORECASE
)


def pieces(lines: Iterable[str]) -> list[str]:
    """Lines as hawkBit takes them (rule 1); an empty one stays one."""
    return [piece for line in lines for piece in _pieces(line)]


def batches(lines: Sequence[str], room: int) -> list[Sequence[str]]:
    """What goes into a message that has `room`, and then into new ones (rule 2)."""
    return [lines[:room], *(lines[start : start + MOST_LINES] for start in range(room, len(lines), MOST_LINES))]


def is_kept_back(body: Mapping[str, object]) -> bool:
    """Whether a stored message waits for the end of its action (rule 3)."""
    return _LEFT_OUT in body


def kept_back(body: Mapping[str, object], held: Sequence[str], lines: Sequence[str]) -> dict[str, object]:
    """The body of the message that is kept back: what it `held` before, and `lines` after it (rule 3)."""
    before = body.get(_LEFT_OUT, 0)
    details, left_out = _shortened([*held, *lines])
    return {**body, "details": details, _LEFT_OUT: left_out + (before if isinstance(before, int) else 0)}


def as_told(body: Mapping[str, object], details: Sequence[str]) -> list[str]:
    """The lines of a stored message as they are sent."""
    left_out = body.get(_LEFT_OUT, 0)
    return [f"{left_out} lines left out", *details] if left_out else list(details)


def _pieces(line: str) -> list[str]:
    width = LONGEST_LINE if line.isascii() or max(line) <= "\uffff" else LONGEST_LINE // _BEYOND_16_BITS
    return [line[start : start + width] for start in range(0, len(line), width)] or [""]


def _shortened(lines: list[str]) -> tuple[list[str], int]:
    """As many as go beside the words on what was left out, and how many were."""
    excess = len(lines) - (MOST_LINES - 1)
    if excess <= 0:
        return lines, 0
    older = range(len(lines) - _LAST)
    dispensable = [place for place in older if not _TELLS_OF_AN_ERROR.search(lines[place])]
    others = [place for place in older if _TELLS_OF_AN_ERROR.search(lines[place])]
    leaves = set([*dispensable, *others][:excess])
    return [line for place, line in enumerate(lines) if place not in leaves], excess
