"""What people ask the running gateway about messages that a receiver elsewhere does not have, and what it answers."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

REPORTS = "/v1/reports"
RESEND = "/v1/reports/resend"

_Id = Annotated[int, Field(strict=True, ge=1)]


class ReportStanding(StrEnum):
    """Why a receiver does not have a message."""

    WAITING = "waiting"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportState:
    """One message: `receiver` is an assigner or a webhook, `action` its own id of the action, `final` ends it there.

    `attempts` and `trouble` tell of sending so far; it is not sent again before `not_before`.
    """

    id: int
    receiver: str
    node: str
    action: str
    matter: str
    final: bool
    standing: ReportStanding
    created: datetime
    attempts: int
    not_before: datetime | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ResendRequest:
    """Send these at once, also what was given up; None: everything that waits."""

    messages: Annotated[tuple[_Id, ...], Field(min_length=1, max_length=10_000)] | None


REPORTS_REPLY = TypeAdapter(tuple[ReportState, ...])
RESEND_REQUEST = TypeAdapter(ResendRequest)
