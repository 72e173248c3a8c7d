"""What the operator's commands and the running gateway say to each other: JSON over HTTP over the Unix socket."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from gateway.config import PrefetchMode
from gateway.edge import Refusal
from gateway.fleet.catalogue import RepositoryState
from gateway.fleet.issuing import Verdict
from gateway.fleet.tokens import MAX_VALID_S
from gateway.status import GatewayState, NodeState

STATUS = "/v1/status"
NODES = "/v1/nodes"
ASSIGN = "/v1/assign"
TOKENS = "/v1/tokens"
REFRESH = "/v1/repositories/{name}/refresh"

_NO_OTHER_KEYS = ConfigDict(extra="forbid")
_Name = Annotated[str, Field(max_length=64)]
_Reason = Annotated[str, Field(max_length=2000)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class AssignRequest:
    """Order `release` (path or version) for `nodes`; None: for every node.

    `prefetch`: how its images are fetched beforehand; None: as the repository is configured. `override`: also for nodes that
    others assign for.
    """

    release: Annotated[str, Field(min_length=1, max_length=4096)]
    nodes: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=10_000)] | None
    repository: _Name = ""
    reason: _Reason = ""
    prefetch: PrefetchMode | None = None
    override: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentState:
    """What the order meant for one node; `action` 0: none was needed."""

    node: str
    verdict: Verdict
    action: int
    fence: int
    repository: str
    path: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class TokenRequest:
    """Make a one-time token, for `node` or (empty) for any name."""

    valid_s: Annotated[int, Field(strict=True, ge=1, le=MAX_VALID_S)]
    node: _Name = ""
    reason: _Reason = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReply:
    """The token in clear, this once."""

    token: str
    node: str
    expires: datetime


STATUS_REPLY = TypeAdapter(GatewayState)
NODES_REPLY = TypeAdapter(tuple[NodeState, ...])
ASSIGN_REQUEST = TypeAdapter(AssignRequest)
ASSIGN_REPLY = TypeAdapter(tuple[AssignmentState, ...])
TOKEN_REQUEST = TypeAdapter(TokenRequest)
TOKEN_REPLY = TypeAdapter(TokenReply)
REFRESH_REPLY = TypeAdapter(RepositoryState)
REFUSAL = TypeAdapter(Refusal)
