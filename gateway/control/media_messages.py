"""What people say about media to the running gateway, and what it answers."""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

ACCEPT_STALE = "/v1/media/{medium}/accept-stale"


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StaleRequest:
    """Accept the medium past its expiry at its next visit, because of this."""

    reason: Annotated[str, Field(max_length=2000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleReply:
    """It is accepted at its next visit."""

    medium: str


STALE_REQUEST = TypeAdapter(StaleRequest)
STALE_REPLY = TypeAdapter(StaleReply)
