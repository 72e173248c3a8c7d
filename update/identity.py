"""Who a device is: its hardware (SWUpdate's board and revision) and the names used in paths and URLs.

Hardware patterns are those of sw-description's `hardware-compatibility`: a literal revision, or `#RE:` and a POSIX
extended regular expression (SWUpdate manual, "Checking version"); hwIds in TUF custom metadata are `board:revision`
with the same pattern allowed for the revision.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from update.errors import ConfigurationError, HardwareError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_PATTERN_PREFIX = "#RE:"
_MAX_PATTERN_CHARACTERS = 256


def check_name(text: str, what: str) -> str:
    """Return `text` if it may name a node, repository or slot: 1 to 64 of `A-Za-z0-9._-`, alphanumeric at both ends."""
    if not _NAME.fullmatch(text) or ".." in text:
        raise ConfigurationError(f"{what} may hold 1 to 64 letters, digits, '.', '_' and '-', no '..': got {text[:80]!r}")
    return text


@dataclass(frozen=True, slots=True)
class Hardware:
    """A board and its revision, as in /etc/hwrevision."""

    board: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `board:revision`, or without a colon `board revision`, as in /etc/hwrevision; RAUC's boards may hold blanks."""
        stripped = text.strip()
        board, _, revision = stripped.partition(":" if ":" in stripped else " ")
        if not board or not revision:
            raise ConfigurationError(f"hardware is written 'board:revision': got {text[:80]!r}")
        return cls(board, revision)

    def __str__(self) -> str:
        return f"{self.board}:{self.revision}"

    def accepts(self, identifiers: Iterable[str]) -> bool:
        """Whether any `board:revision` of TUF's hwIds names this hardware."""
        pairs = (identifier.partition(":") for identifier in identifiers)
        return any(board == self.board and revision_matches(self.revision, revision) for board, _, revision in pairs)


def revision_matches(revision: str, pattern: str) -> bool:
    """Whether one entry of `hardware-compatibility` admits `revision`; `HardwareError` for a pattern that does not compile."""
    if not pattern.startswith(_PATTERN_PREFIX):
        return revision == pattern
    expression = pattern.removeprefix(_PATTERN_PREFIX)
    if len(expression) > _MAX_PATTERN_CHARACTERS:
        raise HardwareError(f"hardware pattern longer than {_MAX_PATTERN_CHARACTERS} characters")
    try:
        return re.search(expression, revision) is not None
    except re.error as error:
        raise HardwareError(f"hardware pattern does not compile: {expression!r}") from error
