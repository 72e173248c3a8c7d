"""The page in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.web.snapshot import Condition, Node, Snapshot, Stick
from gateway.web.view import MAX_NODES, view_of
from media.signals import Show
from media.words import Language

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STICK = Stick("m", "UPDATE", Show.COPYING, False, 1, 42, 100, 42, "", "")
NODE = Node("n1", Condition.UPDATING, False, NOW, "1", "a", "2", NOW, "writing 42 %", 42, 100)
EMPTY = Snapshot("gw", "0.1", NOW, (), ())


def seen(*nodes: Node) -> Snapshot:
    return replace(EMPTY, nodes=nodes)


def test_a_stick_says_the_words_of_everybody() -> None:
    (stick,) = view_of(replace(EMPTY, sticks=(STICK,)), Language.GERMAN, NOW).sticks
    assert (stick.words, stick.advice, stick.tone, stick.percent) == ("Kopiert 42 %", "Stick nicht entfernen.", "busy", 42)
    assert "42" not in stick.spoken, "a screen reader does not read every per cent"
    failed = replace(STICK, show=Show.FAILED, removable=True, code="trust.expired")
    (stick,) = view_of(replace(EMPTY, sticks=(failed,)), Language.ENGLISH, NOW).sticks
    assert (stick.words, stick.tone, stick.percent) == ("Failed trust.expired", "bad", None)


def test_the_worst_come_first_and_all_are_counted() -> None:
    conditions = [Condition.CURRENT, Condition.FAILED, Condition.WAITING, Condition.CURRENT, Condition.UPDATING]
    nodes = [replace(NODE, id=f"n{number}", condition=each, late=number == 3) for number, each in enumerate(conditions)]
    view = view_of(seen(*nodes), Language.ENGLISH, NOW)
    assert [node.id for node in view.nodes] == ["n1", "n4", "n2", "n3", "n0"]
    assert [(each, count) for each, _, count in view.counts] == [
        (Condition.FAILED, 1),
        (Condition.UPDATING, 1),
        (Condition.WAITING, 1),
        (Condition.CURRENT, 2),
    ]


def test_what_runs_and_what_is_wanted_stand_apart() -> None:
    (node,) = view_of(seen(NODE), Language.ENGLISH, NOW).nodes
    assert (node.runs, node.slot, node.wanted, node.standing, node.percent) == ("1", "slot a", "2", "writing 42 %", 42)
    assert node.since.startswith("since ")
    (node,) = view_of(seen(NODE), Language.GERMAN, NOW).nodes
    assert node.standing == "schreibt 42 %"
    (node,) = view_of(seen(replace(NODE, standing="installed, not yet verified")), Language.GERMAN, NOW).nodes
    assert node.standing == "installed, not yet verified"
    bare = Node("n2", Condition.CURRENT, True, NOW - timedelta(days=3), "", "", "")
    (node,) = view_of(seen(bare), Language.GERMAN, NOW).nodes
    assert (node.runs, node.wanted, node.since) == ("unbekannt", "nichts", "")
    assert node.late.startswith("Meldet sich nicht, zuletzt gehört 2026-11-1")


def test_a_failure_shows_code_and_message() -> None:
    bad = replace(NODE, condition=Condition.FAILED, code="device.health", message="the press did not start")
    (node,) = view_of(seen(bad), Language.ENGLISH, NOW).nodes
    assert (node.says, node.problem, node.percent) == ("Failed", "device.health: the press did not start", None)


def test_many_nodes_are_cut_and_the_rest_is_told() -> None:
    view = view_of(seen(*(replace(NODE, id=f"n{number}") for number in range(MAX_NODES + 3))), Language.ENGLISH, NOW)
    assert (len(view.nodes), view.more, view.counts[0][2]) == (MAX_NODES, "3 more are not shown.", MAX_NODES + 3)


nodes = st.builds(
    Node,
    id=st.text(max_size=9),
    condition=st.sampled_from(Condition),
    late=st.booleans(),
    last_seen=st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 - bounds
    runs=st.text(max_size=9),
    slot=st.text(max_size=9),
    wanted=st.text(max_size=9),
    since=st.none() | st.just(NOW),
    done=st.integers(0, 9),
    total=st.integers(0, 9),
)


@given(st.lists(nodes, max_size=5).map(tuple), st.sampled_from(Language))
def test_every_node_can_be_shown(several: tuple[Node, ...], language: Language) -> None:
    view = view_of(replace(EMPTY, nodes=several), language, NOW)
    assert len(view.nodes) == len(several)
    assert all(node.percent is None or 0 <= node.percent <= 100 for node in view.nodes)
