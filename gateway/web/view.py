"""A snapshot in words of one language: all that the templates need, decided before they are filled."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.web.snapshot import Condition, Node, Snapshot, Stick
from gateway.web.texts import OF_CONDITION, OF_STATE, Text, say
from gateway.words import share
from media.signals import Show
from media.words import Language, advice, big

MAX_NODES: Final = 500
"""More would make the page slow to draw; the worst are shown first."""
_COUNTED: Final = frozenset({Show.COPYING, Show.UPDATING})
_ORDER: Final = tuple(Condition)


@dataclass(frozen=True, slots=True)
class StickView:
    """One stick. `tone` is its colour: busy, well or bad; `percent` None: there is nothing to count.

    `spoken` is for screen readers: it changes with the state, not with every per cent.
    """

    tone: str
    show: Show
    words: str
    advice: str
    label: str
    message: str
    percent: int | None
    spoken: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node."""

    id: str
    condition: Condition
    says: str
    standing: str
    runs: str
    slot: str
    wanted: str
    since: str
    problem: str
    late: str
    percent: int | None


@dataclass(frozen=True, slots=True)
class View:
    """The whole page. `counts` are (condition, its words, how many nodes)."""

    language: Language
    gateway: str
    version: str
    as_of: str
    sticks: tuple[StickView, ...]
    counts: tuple[tuple[Condition, str, int], ...]
    nodes: tuple[NodeView, ...]
    more: str

    def text(self, name: str) -> str:
        """A text without figures."""
        return say(Text(name), self.language)


def view_of(snapshot: Snapshot, language: Language, now: datetime) -> View:
    """What is shown of it."""
    nodes = sorted(snapshot.nodes, key=lambda node: (_ORDER.index(node.condition), not node.late, node.id))
    counted = Counter(node.condition for node in nodes)
    left = len(nodes) - MAX_NODES
    return View(
        language=language,
        gateway=snapshot.gateway,
        version=snapshot.version,
        as_of=say(Text.REFRESHED, language, time=_time(now, now, seconds=True)),
        sticks=tuple(_stick(stick, language) for stick in snapshot.sticks),
        counts=tuple((each, say(OF_CONDITION[each], language), counted[each]) for each in _ORDER if counted[each]),
        nodes=tuple(_node(node, language, now) for node in nodes[:MAX_NODES]),
        more=say(Text.MORE_NODES, language, count=left) if left > 0 else "",
    )


def _stick(stick: Stick, language: Language) -> StickView:
    signal = stick.signal
    counted = stick.show in _COUNTED and stick.total > 0
    tone = "bad" if stick.show is Show.FAILED else "well" if stick.removable else "busy"
    words, may = big(signal, language), advice(signal, language)
    spoken = may if stick.show is Show.COPYING else f"{words}. {may}"
    percent = stick.percent if counted else None
    return StickView(tone, stick.show, words, may, stick.label, stick.message, percent, spoken)


def _node(node: Node, language: Language, now: datetime) -> NodeView:
    says = say(OF_CONDITION[node.condition], language)
    seen = say(Text.LAST_SEEN, language, time=_time(node.last_seen, now))
    open_still = node.condition in {Condition.UPDATING, Condition.WAITING}
    return NodeView(
        id=node.id,
        condition=node.condition,
        says=says,
        standing=_standing(node.standing, language) if node.condition is Condition.UPDATING else "",
        runs=node.runs or say(Text.UNKNOWN, language),
        slot=say(Text.SLOT, language, slot=node.slot) if node.slot else "",
        wanted=node.wanted or say(Text.NOTHING, language),
        since=say(Text.SINCE, language, time=_time(node.since, now)) if node.since and open_still else "",
        problem=f"{node.code}: {node.message}".strip(": ") if node.condition is Condition.FAILED else "",
        late=f"{say(Text.LATE, language)}, {seen}" if node.late else "",
        percent=int(share(node.done, node.total).split()[0]) if open_still and node.total else None,
    )


def _standing(standing: str, language: Language) -> str:
    """What its agent says, in this language as far as it is one of ours: `writing 42 %`."""
    word, blank, rest = standing.partition(" ")
    return f"{say(OF_STATE[word], language)}{blank}{rest}" if word in OF_STATE else standing


def _time(moment: datetime, now: datetime, *, seconds: bool = False) -> str:
    """On the clock of this machine; with the date where it is not today's."""
    local = moment.astimezone()
    clock = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    return clock if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d} {clock}"
