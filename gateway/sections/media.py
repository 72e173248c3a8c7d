"""The configuration of what comes by hand, as far as the gateway decides it; whoever reads media has a file of its own."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from media.words import Language
from update.provided import NO_OTHER_KEYS, Name, ProvidedPath

_Switch = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class MediaSection:
    """Updates on sticks; off by default.

    `intake` is the folder where the gateway and `media watch` meet, the same in both files (a tmpfs spares the disk).
    `install`: what came is ordered for the nodes that it is for; otherwise it is only kept. `override`: also for nodes of another
    assigner. `singles` names the repositories whose `cms_roots` may prove bundles that no metadata lists; none: they are refused.
    `requests`: what lies on a medium may ask for the log. `language` is that of reports. `stale_grace_s`: how long past its
    expiry an operator may have a medium accepted (0: never).
    """

    enabled: _Switch = False
    intake: ProvidedPath = Path("/run/fieldrelay-intake")
    install: _Switch = True
    override: _Switch = False
    singles: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    requests: _Switch = False
    language: Language = Language.ENGLISH
    stale_grace_s: Annotated[int, Field(strict=True, ge=0, le=366 * 86400)] = 0
