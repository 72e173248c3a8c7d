"""The configuration of probes: how the gateway finds out what nodes run that prove nothing themselves."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, Url

_PLACE = re.compile(r"json:[^.\s]{1,80}(\.[^.\s]{1,80}){0,7}|header:[A-Za-z0-9-]{1,80}", re.ASCII)


def _checked_place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise ValueError("a place is json:NAME, json:NAME.NAME… or header:NAME")
    return text


_Pattern = Annotated[str, Field(min_length=1, max_length=128)]
_Place = Annotated[str, AfterValidator(_checked_place)]
_Word = Annotated[str, Field(min_length=1, max_length=4096)]
_Every = Annotated[int, Field(strict=True, ge=1, le=3600)]
_Patience = Annotated[int, Field(strict=True, ge=1, le=300)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class ProbeSection:
    """How nodes that match one of the patterns `nodes` are asked: by `url` or by `command`; the first section that fits counts.

    `{node}` stands for the node's name in both. A command is run without a shell, and prints JSON. `version` and `boot_id` say
    where in the answer they stand; a command's have no headers.
    """

    name: Name
    nodes: Annotated[tuple[_Pattern, ...], Field(min_length=1, max_length=1000)]
    url: Url | None = None
    command: Annotated[tuple[_Word, ...], Field(max_length=100)] = ()
    version: _Place = "json:version"
    boot_id: _Place = "json:boot_id"
    every_s: _Every = 30
    timeout_s: _Patience = 10


def checked_probes(sections: tuple[ProbeSection, ...]) -> tuple[ProbeSection, ...]:
    """Names once each, one way of asking each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each probe has its own name; given twice: {', '.join(doubled)}")
    for section in sections:
        if (section.url is None) == (not section.command):
            raise ValueError(f"{section.name}: name either url or command")
        if section.command and not section.command[0].startswith("/"):
            raise ValueError(f"{section.name}: the command is named by its whole path, not {section.command[0][:80]!r}")
        if section.command and any(place.startswith("header:") for place in (section.version, section.boot_id)):
            raise ValueError(f"{section.name}: a command prints JSON and has no headers")
    return sections
