"""The configuration of streams of events that the gateway opens outwards, so that it hears of news behind NAT."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath, Url


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class CallSection:
    """One stream of server-sent events: another Fieldrelay's `/push/v1/events`, or a relay of webhooks.

    `token` is a file with what is shown as `Authorization: Bearer`. `site_ca` is the other Fieldrelay's site CA (PEM); without,
    it is proved as `[wan]` proves it. `repositories` are asked for at each event; empty: all of them. A stream that is silent
    for `idle_s` is opened anew.
    """

    name: Name
    url: Url
    token: ProvidedPath | None = None
    site_ca: ProvidedPath | None = None
    repositories: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    idle_s: Annotated[int, Field(strict=True, ge=1, le=86400)] = 60


def checked_calls(sections: tuple[CallSection, ...]) -> tuple[CallSection, ...]:
    """Names once each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each call has its own name; given twice: {', '.join(doubled)}")
    return sections
