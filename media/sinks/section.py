"""The configuration of what shows signals: a section of the file of whoever reads media."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, ProvidedPath

_Switch = Annotated[bool, Field(strict=True)]
_Led = Annotated[str, Field(max_length=63, pattern=r"^([^/.\s][^/\s]*)?$")]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class LedsSection:
    """Lights by their names below `root`; empty: none. The same name for all three makes one light of them."""

    root: ProvidedPath = Path("/sys/class/leds")
    busy: _Led = ""
    safe: _Led = ""
    failed: _Led = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class SignalsSection:
    """What people see and hear. `beeper`: an event device, or a terminal that rings; `console`: a terminal for a page of text."""

    leds: LedsSection = LedsSection()
    beeper: ProvidedPath | None = None
    console: ProvidedPath | None = None
    journal: _Switch = True
