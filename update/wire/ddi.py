"""hawkBit's Direct Device Integration API v1: the messages, for the server and the client side.

Rules, from hawkBit and from what its clients really send:

- Unknown members are ignored on both sides; `id` may be a text or a number; attribute values may be numbers or booleans.
- What is sent is what the strictest client reads: `size` and action ids are integers (ids positive 32-bit, since SWUpdate
  parses a C int and answers under a clamped one), absent members are left out, never null.
- `execution` and `finished` are both required in feedback. `closed` with `none` counts as success in hawkBit.
- Sizes and counts have limits, and a message has a limit in bytes before it is parsed.

Fieldrelay adds two things that foreign parties ignore: chunk metadata `fieldrelay.*` (`update.wire.assignment`) and the
feedback member `fieldrelay` (a `Report`).
"""

import re
from enum import StrEnum
from typing import Annotated, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from update.errors import ProtocolError

MAX_ACTION_ID: Final = 2**31 - 1
MAX_POLLING_S: Final = 24 * 3600 - 1
MAX_ROOT_BYTES: Final = 64 << 10
MAX_DEPLOYMENT_BYTES: Final = 1 << 20
MAX_FEEDBACK_BYTES: Final = 128 << 10
"""SWUpdate sends 48 lines of up to 2047 bytes at once."""
MAX_CONFIG_DATA_BYTES: Final = 256 << 10
_MAX_SIZE = 2**53 - 1
_POLLING = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])", re.ASCII)

_READ = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


def _scalar_text(value: object) -> object:
    """JSON numbers and booleans as the text that hawkBit makes of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) and len(str(value)) <= 40 else value


Text = Annotated[str, StringConstraints(max_length=512)]
LongText = Annotated[str, StringConstraints(max_length=8192)]
Loose = Annotated[str, BeforeValidator(_scalar_text), StringConstraints(max_length=1024)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Size = Annotated[int, Field(ge=0, le=_MAX_SIZE)]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{32,64}$")]


class Execution(StrEnum):
    """How far an action is."""

    CLOSED = "closed"
    PROCEEDING = "proceeding"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"
    REJECTED = "rejected"
    RESUMED = "resumed"
    DOWNLOAD = "download"
    DOWNLOADED = "downloaded"


class Finished(StrEnum):
    """How it ended; `none` while it has not."""

    SUCCESS = "success"
    FAILURE = "failure"
    NONE = "none"


class Handling(StrEnum):
    """What a client may do now. `skip` makes SWUpdate report a success at once: never send it there."""

    SKIP = "skip"
    ATTEMPT = "attempt"
    FORCED = "forced"


class Window(StrEnum):
    """Whether the maintenance window is open."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class Link(BaseModel):
    """A hypermedia link."""

    model_config = _READ
    href: Url


class Polling(BaseModel):
    """When to come back, as `HH:MM:SS`."""

    model_config = _READ
    sleep: Annotated[str, StringConstraints(pattern=f"^{_POLLING.pattern}$")]


class Config(BaseModel):
    """The `config` of the root."""

    model_config = _READ
    polling: Polling


class RootLinks(BaseModel):
    """What waits for the node: at most one of the first three."""

    model_config = _READ
    deployment_base: Annotated[Link | None, Field(alias="deploymentBase")] = None
    cancel_action: Annotated[Link | None, Field(alias="cancelAction")] = None
    confirmation_base: Annotated[Link | None, Field(alias="confirmationBase")] = None
    installed_base: Annotated[Link | None, Field(alias="installedBase")] = None
    config_data: Annotated[Link | None, Field(alias="configData")] = None


class Root(BaseModel):
    """GET /{tenant}/controller/v1/{node}."""

    model_config = _READ
    config: Config
    links: Annotated[RootLinks, Field(alias="_links")] = RootLinks()


class Hashes(BaseModel):
    """Digests of an artifact, hexadecimal."""

    model_config = _READ
    sha1: Hex | None = None
    md5: Hex | None = None
    sha256: Hex | None = None


class ArtifactLinks(BaseModel):
    """Where an artifact is: over TLS and in the clear."""

    model_config = _READ
    download: Link | None = None
    download_http: Annotated[Link | None, Field(alias="download-http")] = None
    md5sum: Link | None = None
    md5sum_http: Annotated[Link | None, Field(alias="md5sum-http")] = None


class Artifact(BaseModel):
    """One file of a chunk; `size` in bytes."""

    model_config = _READ
    filename: Text
    hashes: Hashes = Hashes()
    size: Size
    links: Annotated[ArtifactLinks, Field(alias="_links")] = ArtifactLinks()


class Metadata(BaseModel):
    """One key and value of a chunk."""

    model_config = _READ
    key: Key
    value: LongText


class Chunk(BaseModel):
    """One software module of a deployment."""

    model_config = _READ
    part: Text
    version: Text
    name: Text
    encrypted: bool | None = None
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=256)] = ()
    metadata: Annotated[tuple[Metadata, ...] | None, Field(max_length=256)] = None


class DeploymentBody(BaseModel):
    """What is wanted, and what may be done about it now."""

    model_config = _READ
    download: Handling
    update: Handling
    maintenance_window: Annotated[Window | None, Field(alias="maintenanceWindow")] = None
    chunks: Annotated[tuple[Chunk, ...], Field(max_length=64)] = ()


class ActionHistory(BaseModel):
    """What was told of the action before, newest first."""

    model_config = _READ
    status: Text = ""
    messages: Annotated[tuple[LongText, ...], Field(max_length=1000)] = ()


class DeploymentBase(BaseModel):
    """GET .../deploymentBase/{action}."""

    model_config = _READ
    id: Loose
    deployment: DeploymentBody
    action_history: Annotated[ActionHistory | None, Field(alias="actionHistory")] = None


class CancelStop(BaseModel):
    """Which action to stop."""

    model_config = _READ
    stop_id: Annotated[Loose, Field(alias="stopId")]


class CancelAction(BaseModel):
    """GET .../cancelAction/{action}."""

    model_config = _READ
    id: Loose
    cancel_action: Annotated[CancelStop, Field(alias="cancelAction")]


class Progress(BaseModel):
    """`cnt` of `of` steps."""

    model_config = _READ
    cnt: Size = 0
    of: Size | None = None


class Result(BaseModel):
    """The result so far."""

    model_config = _READ
    finished: Finished
    progress: Progress | None = None


class Status(BaseModel):
    """The status of a feedback; swupdate sends log bursts as `details`."""

    model_config = _READ
    execution: Execution
    result: Result
    code: Annotated[int | None, Field(ge=-(2**31), lt=2**31)] = None
    details: Annotated[tuple[LongText, ...] | None, Field(max_length=1000)] = None


class Report(BaseModel):
    """What our own agent adds: `report` identifies it for de-duplication, `sequence` shows gaps, the rest are its figures."""

    model_config = _READ
    report: UUID
    sequence: Size
    fence: Size = 0
    state: Text = ""
    outcome: Text = ""
    version: Text = ""
    slot: Text = ""
    slot_sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    downloaded_bytes: Size = 0
    reused_bytes: Size = 0
    done: Size = 0
    total: Size = 0
    code: Text = ""
    message: LongText = ""
    boot_id: Annotated[str, StringConstraints(max_length=64)] = ""
    proof: Text = ""


class Feedback(BaseModel):
    """POST .../deploymentBase/{action}/feedback and .../cancelAction/{action}/feedback; `timestamp` in ms since the epoch."""

    model_config = _READ
    id: Loose | None = None
    time: Loose | None = None
    timestamp: Size | None = None
    status: Status
    fieldrelay: Report | None = None


class Mode(StrEnum):
    """What attributes sent do to those that are kept."""

    MERGE = "merge"
    REPLACE = "replace"
    REMOVE = "remove"


class ConfigData(BaseModel):
    """PUT .../configData: attributes of the node, at most 100."""

    model_config = _READ
    mode: Mode = Mode.MERGE
    data: Annotated[dict[Key, Loose], Field(max_length=100)]


_Message = TypeVar("_Message", bound=BaseModel)


def decode(model: type[_Message], data: bytes, *, max_bytes: int) -> _Message:
    """Read one message; `ProtocolError` names the first member that is wrong, and never repeats hostile text at length."""
    if len(data) > max_bytes:
        raise ProtocolError(f"a {model.__name__} message of {len(data)} bytes; at most {max_bytes} are read")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:8]) or "the message"
        raise ProtocolError(f"not a {model.__name__} message: {place}: {first['msg'][:120]}") from error


def encode(message: BaseModel) -> bytes:
    """The JSON of one message; absent members are left out."""
    return message.model_dump_json(by_alias=True, exclude_none=True).encode()


def parse_polling(text: str) -> int:
    """Seconds of `HH:MM:SS`; `ProtocolError` for any other form."""
    match = _POLLING.fullmatch(text)
    if match is None:
        raise ProtocolError(f"a polling time is written HH:MM:SS, up to 23:59:59: got {text[:20]!r}")
    hours, minutes, seconds = (int(part) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def format_polling(seconds: int) -> str:
    """`HH:MM:SS`, kept between one second and 23:59:59."""
    minutes, second = divmod(max(1, min(seconds, MAX_POLLING_S)), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


def parse_action_id(text: str) -> int:
    """A positive 32-bit action id; `ProtocolError` otherwise."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text, re.ASCII) or int(text) > MAX_ACTION_ID:
        raise ProtocolError(f"an action id is a number from 1 to {MAX_ACTION_ID}: got {text[:20]!r}")
    return int(text)
