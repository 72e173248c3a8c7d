"""The configuration of listeners for masters that push: SWUpdate's `swuforward` handler, or whoever uploads as it does."""

from ipaddress import ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath


def _checked_network(text: str) -> str:
    ip_network(text)
    return text


def _checked_address(text: str) -> str:
    ip_address(text)
    return text


_Network = Annotated[str, AfterValidator(_checked_network)]
_Address = Annotated[str, AfterValidator(_checked_address)]
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Pattern = Annotated[str, Field(min_length=1, max_length=128)]
_Switch = Annotated[bool, Field(strict=True)]
_Bytes = Annotated[int, Field(strict=True, ge=1, le=1 << 40)]
_Stall = Annotated[int, Field(strict=True, ge=1, le=3600)]
_Patience = Annotated[int, Field(strict=True, ge=1, le=366 * 86400)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class SwuforwardSection:
    """One listener that poses as SWUpdate's webserver; it is the assigner `swuforward:NAME`.

    `allowed` are the addresses or networks of its masters. `credentials` is a file with `user:password`, asked of uploads; no
    status message can be protected so, since the handler shows nothing there. `repository` names whose `cms_roots` prove what
    is uploaded. `nodes` are patterns among the nodes that it assigns for; empty: all of them.
    """

    name: Name
    repository: Name
    allowed: Annotated[tuple[_Network, ...], Field(min_length=1, max_length=100)]
    addresses: Annotated[tuple[_Address, ...], Field(min_length=1)] = ("0.0.0.0", "::")  # noqa: S104 - `allowed` says who
    port: _Port = 8081
    credentials: ProvidedPath | None = None
    certificate: ProvidedPath | None = None
    key: ProvidedPath | None = None
    nodes: Annotated[tuple[_Pattern, ...], Field(max_length=1000)] = ()
    all_or_none: _Switch = False
    max_bundle_bytes: _Bytes = 4 << 30
    stalled_after_s: _Stall = 60
    result_within_s: _Patience = 7200


def checked_swuforward(sections: tuple[SwuforwardSection, ...]) -> tuple[SwuforwardSection, ...]:
    """Names and ports once each, a certificate with its key."""
    for what, values in (("name", [each.name for each in sections]), ("port", [str(each.port) for each in sections])):
        if doubled := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"each swuforward has its own {what}; given twice: {', '.join(doubled)}")
    for section in sections:
        if (section.certificate is None) != (section.key is None):
            raise ValueError(f"{section.name}: certificate and key belong together: name both, or none")
    return sections
