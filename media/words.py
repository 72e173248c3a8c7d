"""The words that a technician reads, in every language that the gateway speaks: the same on the page, the console and a report.

A language is one table with every key; a test says that none is missing and that the figures in braces are the same.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from media.signals import Show, Signal


class Language(StrEnum):
    """What the gateway speaks."""

    ENGLISH = "en"
    GERMAN = "de"


BIG: Final[Mapping[Language, Mapping[Show, str]]] = MappingProxyType({
    Language.ENGLISH: MappingProxyType({
        Show.FOUND: "Stick found",
        Show.CHECKING: "Checking",
        Show.COPYING: "Copying {percent} %",
        Show.SAFE: "Safe to remove",
        Show.UPDATING: "Updating {done}/{total}",
        Show.DONE: "Done",
        Show.NOTHING_NEW: "Nothing new",
        Show.IGNORED: "Not used",
        Show.FAILED: "Failed {code}",
    }),
    Language.GERMAN: MappingProxyType({
        Show.FOUND: "Stick gefunden",
        Show.CHECKING: "Wird geprüft",
        Show.COPYING: "Kopiert {percent} %",
        Show.SAFE: "Kann entfernt werden",
        Show.UPDATING: "Aktualisiert {done}/{total}",
        Show.DONE: "Fertig",
        Show.NOTHING_NEW: "Nichts Neues",
        Show.IGNORED: "Nicht verwendet",
        Show.FAILED: "Fehlgeschlagen {code}",
    }),
})  # fmt: skip
"""The few big words."""

_STAY: Final[Mapping[Language, tuple[str, str]]] = MappingProxyType({
    Language.ENGLISH: ("Do not remove the stick.", "The stick may be removed."),
    Language.GERMAN: ("Stick nicht entfernen.", "Der Stick kann entfernt werden."),
})  # fmt: skip


def big(signal: Signal, language: Language) -> str:
    """The big words of a signal, such as `Copying 42 %`."""
    figures = {"percent": signal.percent, "done": signal.done, "total": signal.total, "code": signal.code}
    return BIG[language][signal.show].format(**figures).strip()


def advice(signal: Signal, language: Language) -> str:
    """Whether the stick may be pulled out, as a sentence."""
    return _STAY[language][signal.removable]
