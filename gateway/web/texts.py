"""The page's own words, in the languages of `media.words`, which has those of the sticks."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gateway.web.snapshot import Condition
from media.words import Language
from node_agent.states import State


class Text(StrEnum):
    """What the page says; the figures in braces are put in."""

    TITLE = "title"
    STICKS = "sticks"
    NO_STICK = "no-stick"
    NODES = "nodes"
    NO_NODES = "no-nodes"
    MORE_NODES = "more-nodes"
    RUNS = "runs"
    SLOT = "slot"
    WANTED = "wanted"
    NOTHING = "nothing"
    UNKNOWN = "unknown"
    SINCE = "since"
    LATE = "late"
    LAST_SEEN = "last-seen"
    LOST = "lost"
    REFRESHED = "refreshed"
    FAILED = "failed"
    UPDATING = "updating"
    WAITING = "waiting"
    UNVERIFIED = "unverified"
    CURRENT = "current"
    FETCHING = "fetching"
    WRITING = "writing"
    PREPARED = "prepared"
    ACTIVATING = "activating"
    RESTARTING = "restarting"
    TESTING = "testing"
    HOLDING = "holding"
    CONFIRMING = "confirming"
    REVERTING = "reverting"


TEXTS: Final[Mapping[Language, Mapping[Text, str]]] = MappingProxyType({
    Language.ENGLISH: MappingProxyType({
        Text.TITLE: "Updates",
        Text.STICKS: "Stick",
        Text.NO_STICK: "No stick. Plug one in, and its updates are taken from it.",
        Text.NODES: "Devices",
        Text.NO_NODES: "No device has reported yet.",
        Text.MORE_NODES: "{count} more are not shown.",
        Text.RUNS: "Runs",
        Text.SLOT: "slot {slot}",
        Text.WANTED: "Wanted",
        Text.NOTHING: "nothing",
        Text.UNKNOWN: "unknown",
        Text.SINCE: "since {time}",
        Text.LATE: "Does not report",
        Text.LAST_SEEN: "last heard of {time}",
        Text.LOST: "No connection to the gateway. What you see may be out of date.",
        Text.REFRESHED: "As of {time}",
        Text.FAILED: "Failed",
        Text.UPDATING: "Updating",
        Text.WAITING: "Waiting",
        Text.UNVERIFIED: "Installed, not verified",
        Text.CURRENT: "Up to date",
        Text.FETCHING: "fetching",
        Text.WRITING: "writing",
        Text.PREPARED: "prepared",
        Text.ACTIVATING: "switching over",
        Text.RESTARTING: "restarting",
        Text.TESTING: "testing",
        Text.HOLDING: "waiting for the others",
        Text.CONFIRMING: "confirming",
        Text.REVERTING: "going back",
    }),
    Language.GERMAN: MappingProxyType({
        Text.TITLE: "Aktualisierungen",
        Text.STICKS: "Stick",
        Text.NO_STICK: "Kein Stick. Stecken Sie einen ein, dann werden seine Aktualisierungen übernommen.",
        Text.NODES: "Geräte",
        Text.NO_NODES: "Noch hat sich kein Gerät gemeldet.",
        Text.MORE_NODES: "{count} weitere werden nicht gezeigt.",
        Text.RUNS: "Läuft",
        Text.SLOT: "Slot {slot}",
        Text.WANTED: "Gewünscht",
        Text.NOTHING: "nichts",
        Text.UNKNOWN: "unbekannt",
        Text.SINCE: "seit {time}",
        Text.LATE: "Meldet sich nicht",
        Text.LAST_SEEN: "zuletzt gehört {time}",
        Text.LOST: "Keine Verbindung zum Gateway. Was Sie sehen, kann veraltet sein.",
        Text.REFRESHED: "Stand {time}",
        Text.FAILED: "Fehlgeschlagen",
        Text.UPDATING: "Wird aktualisiert",
        Text.WAITING: "Wartet",
        Text.UNVERIFIED: "Installiert, nicht bestätigt",
        Text.CURRENT: "Aktuell",
        Text.FETCHING: "lädt",
        Text.WRITING: "schreibt",
        Text.PREPARED: "vorbereitet",
        Text.ACTIVATING: "schaltet um",
        Text.RESTARTING: "startet neu",
        Text.TESTING: "prüft sich",
        Text.HOLDING: "wartet auf die anderen",
        Text.CONFIRMING: "bestätigt",
        Text.REVERTING: "kehrt zurück",
    }),
})  # fmt: skip

OF_STATE: Final = MappingProxyType({state.value: Text(state.value) for state in State if state.value in set(Text)})
"""What an agent says that it does (`node_agent.states`), as far as it is worth a word here."""
OF_CONDITION: Final = MappingProxyType({condition: Text(condition.value) for condition in Condition})


def say(text: Text, language: Language, **figures: object) -> str:
    """In this language, with these figures."""
    return TEXTS[language][text].format(**figures)
