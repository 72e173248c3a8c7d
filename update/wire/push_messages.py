"""What a pusher and a gateway tell each other besides the bytes (`/push/v1/`); the bytes travel by tus 1.0.0.

A push collects files in a session. Nothing of them counts before the session is finished: then the gateway judges them as it
judges any upstream, and says of each file what became of it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter

TUS_VERSION = "1.0.0"
UPLOAD_TYPE = "application/offset+octet-stream"
MAX_PATH_BYTES = 300
MAX_FILES = 1000

_Text = Annotated[str, Field(max_length=2000)]
_Bytes = Annotated[int, Field(ge=0, lt=1 << 62)]


class Taken(StrEnum):
    """What became of a file."""

    ACCEPTED = "accepted"
    """It is kept from now on."""
    KNOWN = "known"
    """It was here already."""
    UNUSED = "unused"
    """No metadata that was pushed lists it, or not for the hardware of this site; it was thrown away."""
    REFUSED = "refused"
    """It was thrown away, for the reason that is told."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a session, or go on with the open one of the same `label`, if there is one.

    `repository` empty: the gateway finds out which one the metadata belongs to.
    """

    repository: Annotated[str, Field(max_length=64)] = ""
    label: Annotated[str, Field(max_length=128)] = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one file; `repository` and `version` where they are known."""

    path: _Text
    verdict: Taken
    code: _Text = ""
    message: _Text = ""
    repository: _Text = ""
    version: _Text = ""
    bytes: _Bytes = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a session: the repository that took it (empty: none), its files, and how many nodes are to have them."""

    repository: _Text
    files: Annotated[tuple[Told, ...], Field(max_length=MAX_FILES)]
    nodes: Annotated[int, Field(ge=0)] = 0

    @property
    def refused(self) -> tuple[Told, ...]:
        """What was not taken, with its reason."""
        return tuple(each for each in self.files if each.verdict is Taken.REFUSED)


@dataclass(frozen=True, slots=True)
class Arriving:
    """One file of a session: its path, its bytes, how many of them are kept durably, and where the rest goes to."""

    path: _Text
    length: _Bytes
    offset: _Bytes
    url: _Text


@dataclass(frozen=True, slots=True)
class Session:
    """How a session stands. `expires` is in seconds since 1970; `verdict` once it was finished."""

    session: _Text
    repository: _Text
    expires: int
    files: Annotated[tuple[Arriving, ...], Field(max_length=MAX_FILES)] = ()
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the upstreams for news now. `repository` empty: of all that the pusher may name, and the assigners elsewhere too."""

    repository: Annotated[str, Field(max_length=64)] = ""


BEGIN = TypeAdapter(Begin)
VERDICT = TypeAdapter(Verdict)
SESSION = TypeAdapter(Session)
LOOK = TypeAdapter(Look)
