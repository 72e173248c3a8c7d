"""wfx's messages, as its published OpenAPI 1.1.0 describes them: jobs, their states, workflows, events, refusals.

What is not used here is not read. Sizes are bounded before anything is parsed.
"""

from enum import StrEnum
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from update.errors import ProtocolError

MAX_JOB_BYTES: Final = 2 << 20
MAX_JOBS_BYTES: Final = 8 << 20
MAX_STATUS_BYTES: Final = 64 << 10
MAX_REFUSAL_BYTES: Final = 64 << 10
LONGEST_MESSAGE: Final = 1024
"""Characters in the message of a status (`JobStatus.message`)."""

_FORM = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True)
_State = Annotated[str, Field(min_length=1, max_length=200)]
_Message = TypeVar("_Message", bound=BaseModel)


class Eligible(StrEnum):
    """Who may take a transition."""

    CLIENT = "CLIENT"
    WFX = "WFX"


class Transition(BaseModel):
    """One way from a state to another; `IMMEDIATE` ones the server takes by itself."""

    model_config = _FORM
    start: _State = Field(alias="from")
    end: _State = Field(alias="to")
    eligible: Eligible
    action: str = "WAIT"

    @property
    def immediate(self) -> bool:
        """Whether nobody is waited for."""
        return self.action == "IMMEDIATE"


class Workflow(BaseModel):
    """A graph of states; events name the workflow only."""

    model_config = _FORM
    name: Annotated[str, Field(max_length=64)]
    transitions: Annotated[tuple[Transition, ...], Field(max_length=16384)] = ()


class JobStatus(BaseModel):
    """Where a job stands. The server leaves out what was not said, and events of a changed definition have no state."""

    model_config = _FORM
    state: Annotated[str, Field(max_length=200)] = ""
    client: str = Field(default="", alias="clientId")
    progress: int | None = None
    message: str = ""
    definition_hash: Annotated[str, Field(max_length=64)] = Field(default="", alias="definitionHash")


class Job(BaseModel):
    """What one client is to do."""

    model_config = _FORM
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,36}$")]
    client: str = Field(default="", alias="clientId")
    workflow: Workflow | None = None
    definition: dict[str, object] = {}
    status: JobStatus = JobStatus()


class Jobs(BaseModel):
    """One page of jobs."""

    model_config = _FORM
    content: Annotated[tuple[Job, ...], Field(max_length=1024)]


class Event(BaseModel):
    """Something happened to a job."""

    model_config = _FORM
    action: str
    job: Job


class _Error(BaseModel):
    model_config = _FORM
    code: str
    message: str = ""


class _Refusal(BaseModel):
    model_config = _FORM
    errors: Annotated[tuple[_Error, ...], Field(min_length=1, max_length=128)]


def decode(model: type[_Message], body: bytes) -> _Message:
    """Read a message. Errors: `ProtocolError`."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"wfx's {model.__name__} is not what its interface says: {where}: {first['msg']}") from error


def encode_status(status: JobStatus) -> bytes:
    """The body that sets a status."""
    return status.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"definition_hash"}).encode()


def code_of(body: bytes) -> str:
    """The first code of a refusal; empty where there is none: what does not fit the schema is refused in plain text."""
    try:
        return _Refusal.model_validate_json(body).errors[0].code
    except ValidationError:
        return ""
