"""The configuration of mirrored routes: content of other ecosystems, below a prefix of its own."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, Url


def _checked_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text) or not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError("a prefix begins and ends with '/': letters, digits and -._~ between, e.g. /ostree/")
    if text.startswith(_OWN_PREFIXES):
        raise ValueError(f"these prefixes are the gateway's own: {', '.join(_OWN_PREFIXES)}")
    return text


_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+/", re.ASCII)
_OWN_PREFIXES = ("/targets/", "/repositories/")

_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Prefix = Annotated[str, AfterValidator(_checked_prefix)]
_Host = Annotated[str, Field(pattern=r"^[a-z0-9.-]{0,253}$")]
_Age = Annotated[int, Field(strict=True, ge=0, le=10 * 366 * 86400)]
_Limit = Annotated[int, Field(strict=True, ge=1)]


class RouteKind(StrEnum):
    """What a mirrored route carries, and so which of its names are lasting and how content is proved."""

    OSTREE = "ostree"
    CASYNC = "casync"
    MENDER = "mender"
    OCI = "oci"
    IMMUTABLE = "immutable"


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class RouteSection:
    """Content of another ecosystem, kept and served by plain HTTP (`south.content`) below `prefix`.

    Names that may change are asked for again after `revalidate_s`; when the upstream is away, the last answer is given for
    `stale_if_error_s` after it was last confirmed, then requests are refused.
    """

    name: Name
    prefix: _Prefix
    upstream: Url
    kind: RouteKind
    host: _Host = ""
    revalidate_s: _Age = 60
    stale_if_error_s: _Age = 604800
    max_object_bytes: _Limit = 4 << 30
    quota_bytes: _Limit = 16 << 30
    lasting: Annotated[tuple[_Text, ...], Field(max_length=100)] = ("*.mender",)


def checked_routes(routes: tuple[RouteSection, ...]) -> tuple[RouteSection, ...]:
    """Each with its own name and place, registries where their clients look for them."""
    names = [route.name for route in routes]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each route has its own name; given twice: {', '.join(doubled)}")
    places = [f"{route.host}{route.prefix}" for route in routes]
    if doubled := sorted({place for place in places if places.count(place) > 1}):
        raise ValueError(f"each route has its own host and prefix; given twice: {', '.join(doubled)}")
    for route in routes:
        if (route.kind is RouteKind.OCI) != (route.prefix + "/").startswith("/v2/"):
            raise ValueError(f"{route.name}: registries, and only they, are below /v2/ (got {route.prefix})")
        if route.max_object_bytes > route.quota_bytes:
            raise ValueError(f"{route.name}: max_object_bytes {route.max_object_bytes} is above quota_bytes {route.quota_bytes}")
    return routes
