"""The configuration of who may push to this gateway: build servers that upload, and servers that say when to look."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath

_Switch = Annotated[bool, Field(strict=True)]
_Bytes = Annotated[int, Field(strict=True, ge=1, le=1 << 44)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100)]
_Seconds = Annotated[int, Field(strict=True, ge=1, le=366 * 86400)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PusherSection:
    """One pusher, proved by what it shows or signs.

    `token` is a file with what it shows as `Authorization: Bearer`, `secret` one with what it signs by (`whsec_…`, Standard
    Webhooks); at least one of them. It may upload by its token, and have the gateway look by either.

    `repositories` are those that it may push to and have looked at. `singles`: bundles that no metadata lists too, if the
    `cms_roots` of one of these prove them. `quota_bytes` is what its pushes may hold before they are finished, `uploads` how many
    may come at once. `install`: what came is ordered for the nodes that it is for; otherwise it is only kept.
    """

    name: Name
    token: ProvidedPath | None = None
    secret: ProvidedPath | None = None
    repositories: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    singles: _Switch = False
    install: _Switch = False
    quota_bytes: _Bytes = 8 << 30
    uploads: _Count = 4


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PushSection:
    """Upstream need not wait to be asked; off by default. It is on the listener for nodes, below `/push/v1/`.

    What is not finished `expire_s` after it was begun is thrown away. Upstreams are asked at most every `look_every_s`.
    """

    enabled: _Switch = False
    expire_s: _Seconds = 86400
    max_file_bytes: _Bytes = 4 << 30
    look_every_s: _Seconds = 10
    pusher: Annotated[tuple[PusherSection, ...], Field(max_length=100)] = ()


def checked_push(push: PushSection) -> PushSection:
    """Names once each, and something that proves each pusher."""
    names = [pusher.name for pusher in push.pusher]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each pusher has its own name; given twice: {', '.join(doubled)}")
    for pusher in push.pusher:
        if pusher.token is None and pusher.secret is None:
            raise ValueError(f"{pusher.name}: nothing proves who it is: name a file as its token or secret")
    return push
