"""What people say about coordinated releases to the running gateway, and what it answers."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from gateway.fleet.release_states import ReleaseState

RELEASES = "/v1/releases"
RELEASE = "/v1/releases/{number}"
COMMAND = "/v1/releases/{number}/{command}"

_NO_OTHER_KEYS = ConfigDict(extra="forbid")
_Name = Annotated[str, Field(max_length=64)]
_Reason = Annotated[str, Field(max_length=2000)]


class ReleaseCommand(StrEnum):
    """What can be done with a release that is under way."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class StartRequest:
    """Begin the plan `release` (path, NAME-VERSION or version)."""

    release: Annotated[str, Field(min_length=1, max_length=4096)]
    repository: _Name = ""
    reason: _Reason = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class CommandRequest:
    """Why; kept with the release."""

    reason: _Reason = ""


START_REQUEST = TypeAdapter(StartRequest)
COMMAND_REQUEST = TypeAdapter(CommandRequest)
RELEASE_REPLY = TypeAdapter(ReleaseState)
RELEASES_REPLY = TypeAdapter(tuple[ReleaseState, ...])
