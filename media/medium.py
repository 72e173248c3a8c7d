"""What can be read from a stick, whatever stands between: a mounted folder, or a reader of the file system in our own process.

Names on a medium are never trusted: they are shown to people and used to open what they name, nothing else. Links and special
files are reported and never followed; a walk is bounded in entries and depth, so that a medium made to exhaust its reader is
refused by name (`MediumLimitError`). What is read may be other bytes the next time: whoever copies verifies the copy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final, Protocol

from update.errors import FieldrelayError

MAX_ENTRIES: Final = 100_000
MAX_DEPTH: Final = 12

Parts = tuple[str, ...]
"""A path on a medium, component by component."""


class EntryKind(StrEnum):
    """What an entry is; `other` is a link, a device, a pipe: never opened."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that lies on a medium. `size_bytes` is what it says of itself: a hint, 0 for all but files."""

    parts: Parts
    kind: EntryKind
    size_bytes: int = 0


class Medium(Protocol):
    """A medium that can be read. Not for several threads at once.

    Errors of every method: `MediumGoneError` once it is pulled out, `MediumUnreadableError` for what it cannot deliver.
    """

    def walk(self) -> Iterator[Entry]:
        """Everything on it, folders before what is in them, names in order. Also: `MediumLimitError`."""
        ...

    def open(self, parts: Sequence[str]) -> BinaryIO:
        """A regular file, to be read in blocks and closed. Also: `NotFoundError`, `ProtocolError` for what is no regular file.

        Reading it raises `OSError`, which `trouble` names.
        """
        ...

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        """What an error of the system, met while `parts` was read, means."""
        ...

    def close(self) -> None:
        """Let go of it; idempotent."""
        ...


def shown(parts: Sequence[str], most: int = 200) -> str:
    """A path as people may see it: what cannot be printed is escaped, so that a name cannot forge a line of a log or a page."""
    text = "/".join(parts)
    plain = "".join(each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
