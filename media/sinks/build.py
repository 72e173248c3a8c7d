"""Everything that shows signals, as it is configured."""

from media.sinks.beeper import Beeper, Later
from media.sinks.console import Console
from media.sinks.journal import SystemJournal
from media.sinks.leds import Leds, Role
from media.sinks.section import SignalsSection
from media.sinks.sink import Sink, Sinks
from media.words import Language


def make_sinks(section: SignalsSection, language: Language, later: Later) -> Sinks:
    """`later` is the event loop's `call_later`, for melodies."""
    sinks: dict[str, Sink] = {}
    leds = section.leds
    if leds.busy or leds.safe or leds.failed:
        names = {Role.BUSY: leds.busy, Role.SAFE: leds.safe, Role.FAILED: leds.failed}
        sinks["the lights"] = Leds(leds.root, names)
    if section.beeper is not None:
        sinks["the beeper"] = Beeper(section.beeper, later)
    if section.console is not None:
        sinks["the console"] = Console(section.console, language)
    if section.journal:
        sinks["the journal"] = SystemJournal()
    return Sinks(sinks)
