"""What people say about nodes to the running gateway, and what it answers."""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from gateway.database.records import ClientKind
from update.trust.verified import Provenance

SETTINGS = "/v1/nodes/{name}"
ACCOUNT = "/v1/nodes/{name}/account"
CANCEL = "/v1/nodes/{name}/cancel"
CONFIRM = "/v1/nodes/{name}/confirm"

_NO_OTHER_KEYS = ConfigDict(extra="forbid")
_Assigner = Annotated[str, Field(min_length=1, max_length=80)]
_Reason = Annotated[str, Field(max_length=2000)]
_Id = Annotated[int, Field(strict=True, ge=1, lt=2**31)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class SettingsRequest:
    """What shall be otherwise; None: as it is."""

    assigner: _Assigner | None = None
    client: ClientKind | None = None
    accepts: Provenance | None = None
    reason: _Reason = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What people have decided about a node."""

    node: str
    assigner: str
    client: ClientKind
    accepts: Provenance


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class AccountRequest:
    """A token of its own for a node that such a client speaks for."""

    client: ClientKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReply:
    """The token in clear, this once; empty where it was taken away."""

    node: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class CancelRequest:
    """Let go of what the site ordered."""

    reason: _Reason = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelReply:
    """The actions that end; they may have been begun, and then end with the node's word."""

    node: str
    actions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class ConfirmRequest:
    """Agree (or not) to `action`; None: to what waits. `beforehand`: from now on to all, or no longer."""

    confirmed: bool = True
    action: _Id | None = None
    beforehand: bool | None = None
    reason: _Reason = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmReply:
    """What was agreed to, 0: nothing waited; and whether all is agreed to beforehand."""

    node: str
    action: int
    beforehand: bool


SETTINGS_REQUEST = TypeAdapter(SettingsRequest)
SETTINGS_REPLY = TypeAdapter(NodeSettings)
ACCOUNT_REQUEST = TypeAdapter(AccountRequest)
ACCOUNT_REPLY = TypeAdapter(AccountReply)
CANCEL_REQUEST = TypeAdapter(CancelRequest)
CANCEL_REPLY = TypeAdapter(CancelReply)
CONFIRM_REQUEST = TypeAdapter(ConfirmRequest)
CONFIRM_REPLY = TypeAdapter(ConfirmReply)
