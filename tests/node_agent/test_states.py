"""The tables are complete, consistent with each other, and the reference page is what they draw."""

from pathlib import Path

import pytest

from node_agent.states import MEANING, RESUME, TRANSITIONS, TRIES, Running, State, check_transition, reference_page, resume
from update.errors import StateError

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "states.md"


def test_every_state_has_a_row_in_every_table() -> None:
    assert set(TRANSITIONS) == set(RESUME) == set(MEANING) == set(State)
    assert all(set(row) == set(Running) for row in RESUME.values())


def test_confirming_is_reachable_only_from_testing() -> None:
    before = {old for old, following in TRANSITIONS.items() if State.CONFIRMING in following}
    resumed = {old for old, row in RESUME.items() if State.CONFIRMING in row.values()}
    assert before == {State.TESTING}
    assert resumed == {State.CONFIRMING}


def test_a_version_that_runs_on_trial_ends_only_by_confirmation_or_by_going_back() -> None:
    assert State.IDLE not in TRANSITIONS[State.TESTING]
    assert RESUME[State.TESTING][Running.TARGET] is State.TESTING


@pytest.mark.parametrize("state", State)
def test_resuming_stays_or_makes_a_step_that_the_table_allows(state: State) -> None:
    for following in RESUME[state].values():
        assert following is state or following in TRANSITIONS[state]


@pytest.mark.parametrize("state", TRIES)
def test_giving_a_state_up_is_a_step_that_the_table_allows(state: State) -> None:
    assert TRIES[state].then in TRANSITIONS[state]
    assert TRIES[state].limit >= 1


@pytest.mark.parametrize("state", [state for state in State if state not in {State.IDLE, State.REPORTING}])
def test_every_state_that_may_be_resumed_into_itself_is_counted(state: State) -> None:
    if state in RESUME[state].values():
        assert state in TRIES


def test_every_state_is_reachable_and_leads_back_to_idle() -> None:
    reached, frontier = {State.IDLE}, [State.IDLE]
    while frontier:
        fresh = set(TRANSITIONS[frontier.pop()]) - reached
        reached |= fresh
        frontier += fresh
    assert reached == set(State)
    ending = {State.IDLE}
    while more := {state for state in State if state not in ending and ending & set(TRANSITIONS[state])}:
        ending |= more
    assert ending == set(State)


def test_a_step_outside_the_table_is_refused_with_the_steps_that_are_allowed() -> None:
    with pytest.raises(StateError, match="writing, reporting, idle"):
        check_transition(State.FETCHING, State.CONFIRMING)


def test_a_device_on_its_previous_slot_never_resumes_into_testing() -> None:
    seen = {resume(state, running) for state in State for running in Running if running is not Running.TARGET}
    assert not seen & {State.TESTING, State.CONFIRMING}


def test_the_reference_page_is_what_the_tables_draw() -> None:
    assert _PAGE.read_text() == reference_page(), "write it anew: python -c 'from node_agent.states import *; print(...)'"
