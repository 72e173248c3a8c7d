"""What of a node's state is shown to everybody."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.database.records import ActionOutcome, Running
from gateway.status import NodeState, Wanted
from gateway.web.snapshot import Condition, Node, Stick
from media.signals import Show, Signal

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WANTED = Wanted(7, "plant", "os/a-2.swu", "2", NOW, "open", "", "", "", "")
NODE = NodeState(
    id="n1",
    kind="agent",
    assigner="site",
    hardware="board:1",
    running=Running("1", "", "a"),
    wanted=WANTED,
    attributes={"secret": "address"},
    first_seen=NOW,
    last_seen=NOW,
    late=False,
)


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        ({}, Condition.WAITING),
        ({"report": {"state": "writing"}}, Condition.UPDATING),
        ({"report": {"state": "writing"}, "state": "waiting"}, Condition.WAITING),
        ({"installed": NOW}, Condition.UPDATING),
        *(({"outcome": outcome}, Condition.CURRENT) for outcome in ("success", "downloaded", "cancelled", "superseded")),
        ({"outcome": "unverified"}, Condition.UNVERIFIED),
        *(({"outcome": end}, Condition.FAILED) for end in ("failure", "refused", "rolled-back", "inconsistent", "timed-out")),
    ],
)
def test_a_condition_for_every_standing(change: dict[str, object], condition: Condition) -> None:
    wanted = replace(WANTED, **change)  # type: ignore[arg-type]  # keys by name
    assert Node.of(replace(NODE, wanted=wanted)).condition is condition


def test_every_outcome_has_a_condition() -> None:
    conditions = {Node.of(replace(NODE, wanted=replace(WANTED, outcome=outcome))).condition for outcome in ActionOutcome}
    assert conditions == {Condition.CURRENT, Condition.UNVERIFIED, Condition.FAILED}
    assert Node.of(replace(NODE, wanted=None)).condition is Condition.CURRENT


@pytest.mark.parametrize(
    ("report", "figures"),
    [({"done": 4, "total": 9}, (4, 9)), ({"done": 9, "total": 4}, (0, 0)), ({"done": "x", "total": 4}, (0, 0))],
)
def test_what_a_node_counts_is_shown_where_it_makes_sense(report: dict[str, object], figures: tuple[int, int]) -> None:
    node = Node.of(replace(NODE, wanted=replace(WANTED, report=report)))
    assert (node.done, node.total) == figures


def test_a_stick_keeps_its_signal() -> None:
    signal = Signal(Show.FAILED, "A", True, 3, 1, 2, "trust.expired", "late")
    assert Stick.of("m", signal).signal == signal
