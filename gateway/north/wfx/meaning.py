"""What a wfx job asks for: which one bundle, and on which terms; pure.

- The definition is that of SWUpdate's wfx client: `{"version", "type", "artifacts": [{"name", "version", "uri"}]}`, of which
  only `uri` must be there. One artifact that can be verified as a whole is a bundle; none, or several, is refused: the order
  and the fate of several are nowhere signed.
- While a phased job may only be downloaded, the node may have the bundle and not install it: `windows.UNTIL_TOLD`.
- wfx gives no digest: what comes is hashed when it is here.
- An action is known by the job and what it asks for: a changed definition is another wish.
"""

from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.database.records import Terms
from gateway.fleet.catalogue import BUNDLE_SUFFIXES
from gateway.fleet.windows import UNTIL_TOLD
from gateway.north.wfx.messages import Job
from gateway.north.wfx.workflow import Phase
from update.digest import digest_of
from update.errors import MetadataError, ProtocolError, UnsupportedError
from update.trust.verified import check_target_path
from update.wire.http import parse_url

_FORM = ConfigDict(frozen=True, extra="ignore")
_MARK: Final = "#"
_HASH_CHARACTERS: Final = 16


class _Artifact(BaseModel):
    model_config = _FORM
    name: Annotated[str, Field(max_length=1024)] = ""
    version: Annotated[str, Field(max_length=300)] = ""
    uri: Annotated[str, Field(min_length=1, max_length=8192)]


class _Definition(BaseModel):
    model_config = _FORM
    artifacts: Annotated[tuple[_Artifact, ...], Field(max_length=1024)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The one bundle of a job; `version` is empty where the definition does not say."""

    name: str
    version: str
    uri: str


def terms_of(phase: Phase) -> Terms:
    """On which terms a job may run now."""
    return Terms() if phase is Phase.INSTALL else Terms(opens=UNTIL_TOLD)


def wanted_of(job: Job) -> Wanted:
    """The bundle of a job. Errors: `UnsupportedError` for none or several, `ProtocolError` for what is no definition."""
    try:
        artifacts = _Definition.model_validate(dict(job.definition)).artifacts
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"the job's definition is not one of a device artifact update: {where}: {first['msg']}") from error
    found = [(name, each) for each in artifacts if (name := _bundle_name(each))]
    if len(found) != 1:
        names = ", ".join(each.name or each.uri for each in artifacts)
        raise UnsupportedError(
            f"a job needs exactly one bundle ({', '.join(BUNDLE_SUFFIXES)}); this one has {len(found)}: {names[:200] or 'none'}"
        )
    name, artifact = found[0]
    try:
        return Wanted(check_target_path(name), artifact.version, str(parse_url(artifact.uri)))
    except MetadataError as error:
        raise ProtocolError(f"an artifact's name is refused: {error}") from error


def source_of(job: Job) -> str:
    """What an action of this job is known by."""
    told = job.status.definition_hash or repr(sorted(job.definition.items()))
    return f"{job.id}{_MARK}{digest_of(told.encode())[:_HASH_CHARACTERS]}"


def job_of(source: str) -> str:
    """The id of the job behind an action."""
    return source.partition(_MARK)[0]


def _bundle_name(artifact: _Artifact) -> str:
    """The name of the file, by its address or by what people call it; empty for what is no bundle."""
    path = artifact.uri.partition("?")[0].partition("#")[0]
    names = (unquote(path).rpartition("/")[2], artifact.name.rpartition("/")[2])
    return next((name for name in names if name.endswith(BUNDLE_SUFFIXES)), "")
