"""Which step leads on, on wfx's own graphs."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.wfx.messages import Eligible, Transition, Workflow
from gateway.north.wfx.workflow import Move, Phase, State, Turn, can_be_followed, next_move, phase_of
from gateway.simulators.wfx_jobs import DIRECT, PHASED, dau_workflow
from tests.builders.openapi import shared_file

GRAPHS = {name: Workflow.model_validate(dau_workflow(name)) for name in (DIRECT, PHASED)}


def walked(workflow: Workflow, state: str, goal: str) -> list[str]:
    """The states that a client takes, and a server by itself, on the way."""
    states = [state]
    while (move := next_move(workflow, state, goal)).turn is Turn.OURS:
        state = move.state
        states.append(state)
        while (by_itself := [each.end for each in workflow.transitions if each.immediate and each.start == state]) and (
            state != goal
        ):
            state = by_itself[0]
        assert len(states) < 20
    return states


@pytest.mark.parametrize(
    ("start", "goal", "states"),
    [
        ("INSTALL", "INSTALLING", ["INSTALL", "INSTALLING"]),
        ("INSTALL", "INSTALLED", ["INSTALL", "INSTALLING", "INSTALLED"]),
        ("INSTALL", "ACTIVATED", ["INSTALL", "INSTALLING", "INSTALLED", "ACTIVATING", "ACTIVATED"]),
        ("ACTIVATE", "ACTIVATED", ["ACTIVATE", "ACTIVATING", "ACTIVATED"]),
        ("INSTALL", "TERMINATED", ["INSTALL", "TERMINATED"]),
        ("ACTIVATING", "TERMINATED", ["ACTIVATING", "TERMINATED"]),
        ("ACTIVATED", "ACTIVATED", ["ACTIVATED"]),
    ],
)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_client_walks_the_shortest_way(name: str, start: str, goal: str, states: list[str]) -> None:
    assert walked(GRAPHS[name], start, goal) == states


def test_where_the_server_must_go_on_it_is_waited_for() -> None:
    phased = GRAPHS[PHASED]
    assert next_move(phased, "DOWNLOADED", "TERMINATED") == Move(Turn.THEIRS)
    assert next_move(phased, "CREATED", "DOWNLOADED") == Move(Turn.THEIRS)
    assert walked(phased, "DOWNLOAD", "ACTIVATED") == ["DOWNLOAD", "DOWNLOADING", "DOWNLOADED"]


@pytest.mark.parametrize(("state", "goal"), [("ACTIVATE", "INSTALLED"), ("TERMINATED", "ACTIVATED"), ("NOWHERE", "INSTALLED")])
def test_nothing_is_gone_back_to(state: str, goal: str) -> None:
    assert next_move(GRAPHS[DIRECT], state, goal) == Move(Turn.PASSED)


def test_the_simulated_workflows_are_the_published_ones() -> None:
    for name, graph in GRAPHS.items():
        published: Any = yaml.safe_load(shared_file("data", "wfx", f"{name}.yml").read_text())
        found = Workflow.model_validate(published)
        assert set(found.transitions) == set(graph.transitions)
        assert {each["name"] for each in published["states"]} <= set(State)


def test_every_state_has_its_phase() -> None:
    assert {phase_of(state) for state in State} == set(Phase)
    assert phase_of("DOWNLOADING") is Phase.DOWNLOAD
    assert phase_of("DOWNLOADED") is Phase.WAIT
    assert phase_of("ACTIVATING") is Phase.INSTALL
    assert phase_of("WHATEVER") is None


def without(start: str, end: str) -> Workflow:
    graph = GRAPHS[DIRECT]
    return graph.model_copy(update={"transitions": tuple(t for t in graph.transitions if (t.start, t.end) != (start, end))})


def test_what_leads_to_no_end_cannot_be_followed() -> None:
    assert all(can_be_followed(graph) for graph in GRAPHS.values())
    assert not can_be_followed(Workflow(name="x"))
    assert not can_be_followed(without("ACTIVATING", "ACTIVATED"))
    for state in ("INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING"):
        assert not can_be_followed(without(state, "TERMINATED")), state
    assert not can_be_followed(without("INSTALLED", "ACTIVATE"))


STATES = st.sampled_from(["A", "B", "C", "D", "E"])
TRANSITIONS = st.builds(
    lambda start, end, who: Transition.model_validate({"from": start, "to": end, "eligible": who}),
    STATES,
    STATES,
    st.sampled_from(Eligible),
)


@settings(max_examples=100)
@given(st.lists(TRANSITIONS, max_size=12), STATES, STATES)
def test_on_any_graph_a_step_of_ours_comes_nearer(transitions: list[Transition], start: str, goal: str) -> None:
    workflow = Workflow(name="any", transitions=tuple(transitions))
    state, steps = start, 0
    while (move := next_move(workflow, state, goal)).turn is Turn.OURS:
        assert any((t.start, t.end, t.eligible) == (state, move.state, Eligible.CLIENT) for t in transitions)
        state, steps = move.state, steps + 1
        assert steps <= 5
    assert (move.turn is Turn.THERE) == (state == goal)
