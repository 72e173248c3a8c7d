"""The configuration of the page for whoever stands at the gateway."""

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS


def _checked_address(text: str) -> str:
    ip_address(text)
    return text


_Switch = Annotated[bool, Field(strict=True)]
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Address = Annotated[str, AfterValidator(_checked_address)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class WebSection:
    """The read-only page; off by default, and without a login: nothing can be done by it.

    `tls`: by the gateway's own certificate; otherwise plain HTTP. It answers by addresses, local names and `south.hosts`.
    """

    enabled: _Switch = False
    addresses: Annotated[tuple[_Address, ...], Field(min_length=1)] = ("0.0.0.0", "::")  # noqa: S104 - it is for the LAN
    port: _Port = 8444
    tls: _Switch = True
