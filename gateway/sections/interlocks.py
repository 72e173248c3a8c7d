"""The configuration of interlocks: what says whether devices may restart now (the machine is stopped, the door is shut)."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath, Url

_Word = Annotated[str, Field(min_length=1, max_length=4096)]
_Text = Annotated[str, Field(max_length=256)]
_Patience = Annotated[int, Field(strict=True, ge=1, le=300)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class InterlockSection:
    """One interlock, which release plans name; exactly one of `command`, `url` and `input` says how it is read.

    A command opens it by ending with status 0; an `url` by status 200, and an `input` (a file, such as a digital input of
    sysfs), both with the text `open`, blanks around it aside. What cannot be read within `timeout_s` is shut.
    """

    name: Name
    command: Annotated[tuple[_Word, ...], Field(max_length=100)] = ()
    url: Url | None = None
    input: ProvidedPath | None = None
    open: _Text = "1"
    timeout_s: _Patience = 5


def checked_interlocks(sections: tuple[InterlockSection, ...]) -> tuple[InterlockSection, ...]:
    """Names once each, one way of reading each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each interlock has its own name; given twice: {', '.join(doubled)}")
    for section in sections:
        if sum((bool(section.command), section.url is not None, section.input is not None)) != 1:
            raise ValueError(f"{section.name}: name exactly one of command, url and input")
        if section.command and not Path(section.command[0]).is_absolute():
            raise ValueError(f"{section.name}: the command is named by its whole path, not {section.command[0][:80]!r}")
    return sections
