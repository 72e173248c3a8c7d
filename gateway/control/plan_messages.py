"""What people ask the running gateway about release plans, and what it answers: what would be done here now, or why nothing."""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from gateway.fleet.schedule import PlanRefused, Schedule

PLANS = "/v1/plans"

_NO_OTHER_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class PlanRequest:
    """Judge the plan `release` (path, NAME-VERSION or version)."""

    release: Annotated[str, Field(min_length=1, max_length=4096)]
    repository: Annotated[str, Field(max_length=64)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReply:
    """Exactly one of `schedule` and `refused` is there."""

    repository: str
    description: str = ""
    schedule: Schedule | None = None
    refused: PlanRefused | None = None


PLAN_REQUEST = TypeAdapter(PlanRequest)
PLAN_REPLY = TypeAdapter(PlanReply)
