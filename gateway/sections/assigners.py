"""The configuration of assigners elsewhere: hawkBit and wfx servers, and what they may want of this site's nodes."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath, Url

_NODE = "{node}"
_Template = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]*\{node\}[A-Za-z0-9._:-]*$", max_length=128)]
_Controller = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]*$", max_length=128)]
_Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
_Rate = Annotated[float, Field(gt=0, le=150)]
_Workflow = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
_Tag = Annotated[str, Field(pattern=r"^[^,\x00-\x20\x7f]{1,100}$")]
_Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,64}$")]
_Seconds = Annotated[int, Field(strict=True, ge=5, le=86399)]
_Bytes = Annotated[int, Field(strict=True, ge=1)]
_Switch = Annotated[bool, Field(strict=True)]
_Host = Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,253}$")]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class HawkbitSection:
    """One hawkBit server, or what speaks its DDI; it is the assigner `hawkbit:NAME`.

    It is shown `gateway_token` (a file), or the token of each target (`target_tokens`, a folder with a file for each controller
    id); with neither, `certificate` with `key` speaks, which may be shown in any case. `repository` names whose `cms_roots`
    prove a bundle that no metadata lists. `controller` makes a node's controller id; `gateway_controller` is that of the gateway
    itself, empty: it is no target.
    """

    name: Name
    url: Url
    repository: Name
    tenant: _Tenant = "DEFAULT"
    gateway_token: ProvidedPath | None = None
    target_tokens: ProvidedPath | None = None
    certificate: ProvidedPath | None = None
    key: ProvidedPath | None = None
    controller: _Template = _NODE
    gateway_controller: _Controller = ""
    requests_per_s: _Rate = 20.0
    artifact_hosts: tuple[_Host, ...] = ()
    unverified_is_success: _Switch = True


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class WfxSection:
    """One wfx, by its south side; it is the assigner `wfx:NAME`.

    For what stands before a wfx: `token` (a file) is shown as a bearer token, `certificate` with `key` by TLS, and the client id
    in the header `client_header`, empty: none. `repository` names whose `cms_roots` prove a bundle that no metadata lists.
    `client` makes a node's client id. With `tags`, only jobs that have one of them are taken.
    """

    name: Name
    url: Url
    repository: Name
    token: ProvidedPath | None = None
    certificate: ProvidedPath | None = None
    key: ProvidedPath | None = None
    client_header: _Header = ""
    client: _Template = _NODE
    workflows: Annotated[tuple[_Workflow, ...], Field(min_length=1)] = ("wfx.workflow.dau.direct", "wfx.workflow.dau.phased")
    tags: Annotated[tuple[_Tag, ...], Field(max_length=16)] = ()
    poll_interval_s: _Seconds = 60
    events: _Switch = True
    requests_per_s: _Rate = 20.0
    artifact_hosts: tuple[_Host, ...] = ()
    max_bundle_bytes: _Bytes = 4 << 30
    unverified_is_success: _Switch = True


def checked_wfx(sections: tuple[WfxSection, ...]) -> tuple[WfxSection, ...]:
    """Names once each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each wfx has its own name; given twice: {', '.join(doubled)}")
    if halves := [section.name for section in sections if (section.certificate is None) != (section.key is None)]:
        raise ValueError(f"{halves[0]}: certificate and key belong together: name both, or none")
    return sections


def checked_hawkbit(sections: tuple[HawkbitSection, ...]) -> tuple[HawkbitSection, ...]:
    """Names once each, one kind of token each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each hawkbit has its own name; given twice: {', '.join(doubled)}")
    for section in sections:
        if section.gateway_token is not None and section.target_tokens is not None:
            raise ValueError(f"{section.name}: gateway_token and target_tokens exclude each other: name one")
        if (section.certificate is None) != (section.key is None):
            raise ValueError(f"{section.name}: certificate and key belong together: name both, or none")
    return sections
