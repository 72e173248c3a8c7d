"""hawkBit's DDI v1, continued: confirmations before an update, and what was installed past the server.

`confirmationBase` lets somebody at the node agree to an action before it may be downloaded, once (`feedback`) or beforehand
for all of them (`activateAutoConfirm`). PUT `installedBase` reports what came another way (hawkBit, experimental).
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from update.wire.ddi import ActionHistory, DeploymentBody, Link, LongText, Loose, Size, Text

_READ = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class AutoConfirmState(BaseModel):
    """Whether everything is confirmed beforehand, and by whom; `activated_at` in ms since the epoch."""

    model_config = _READ
    active: bool
    initiator: Text | None = None
    remark: LongText | None = None
    activated_at: Annotated[Size | None, Field(alias="activatedAt")] = None


class ConfirmationLinks(BaseModel):
    """What can be done: the action that waits, and the switch."""

    model_config = _READ
    confirmation_base: Annotated[Link | None, Field(alias="confirmationBase")] = None
    activate: Annotated[Link | None, Field(alias="activateAutoConfirm")] = None
    deactivate: Annotated[Link | None, Field(alias="deactivateAutoConfirm")] = None


class ConfirmationBase(BaseModel):
    """GET .../confirmationBase."""

    model_config = _READ
    auto_confirm: Annotated[AutoConfirmState, Field(alias="autoConfirm")]
    links: Annotated[ConfirmationLinks, Field(alias="_links")] = ConfirmationLinks()


class ConfirmationAction(BaseModel):
    """GET .../confirmationBase/{action}: what is to be agreed to."""

    model_config = _READ
    id: Loose
    confirmation: DeploymentBody
    action_history: Annotated[ActionHistory | None, Field(alias="actionHistory")] = None


class Answer(StrEnum):
    """What somebody at the node says to an action."""

    CONFIRMED = "confirmed"
    DENIED = "denied"


class ConfirmationFeedback(BaseModel):
    """POST .../confirmationBase/{action}/feedback."""

    model_config = _READ
    confirmation: Answer
    code: Annotated[int | None, Field(ge=-(2**31), lt=2**31)] = None
    details: Annotated[tuple[LongText, ...] | None, Field(max_length=1000)] = None


class AutoConfirm(BaseModel):
    """POST .../confirmationBase/activateAutoConfirm."""

    model_config = _READ
    initiator: Text | None = None
    remark: LongText | None = None


class Installed(BaseModel):
    """PUT .../installedBase: a distribution set by name and version, as it was assigned offline."""

    model_config = _READ
    name: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[str, Field(min_length=1, max_length=64)]
