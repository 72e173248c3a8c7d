"""The journal's record: what it says survives the disk, and damage is named."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.record import (
    Entry,
    Release,
    Report,
    entry_from_mapping,
    entry_to_mapping,
    journal_version,
    reports_from_list,
    reports_to_list,
)
from node_agent.states import Outcome, State
from update.digest import Digest
from update.errors import CorruptError, StateError
from update.wire.assignment import MAX_HOLD_S, Commit, Lost

SHA = Digest("a" * 64)
RELEASES = st.builds(
    Release,
    repository=st.text(max_size=20),
    path=st.text(max_size=20),
    sha256=st.just(SHA),
    length=st.integers(0, 2**50),
    version=st.text(max_size=20),
    provenance=st.sampled_from(["tuf", "cms"]),
    release_counter=st.integers(0, 2**31),
    bundle=st.none() | st.just(SHA),
)
ENTRIES = st.builds(
    Entry,
    state=st.sampled_from(State),
    tries=st.integers(0, 20),
    action=st.text(max_size=20),
    fence=st.integers(0, 2**62),
    release=st.none() | RELEASES,
    outcome=st.none() | st.sampled_from(Outcome),
    message=st.text(max_size=100),
    held=st.lists(st.tuples(st.sampled_from("ab"), RELEASES), max_size=2).map(tuple),
    commit=st.sampled_from(Commit),
    together=st.booleans(),
    hold_s=st.integers(0, MAX_HOLD_S),
    hold_until=st.integers(0, 2**62),
    lost=st.sampled_from(Lost),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(ENTRIES)
def test_a_record_survives_json(entry: Entry) -> None:
    assert entry_from_mapping(json.loads(json.dumps(entry_to_mapping(entry)))) == entry


@pytest.mark.parametrize(("key", "value"), [("hold_s", MAX_HOLD_S + 1), ("hold_s", -1), ("commit", "maybe"), ("lost", "wait")])
def test_a_hold_that_no_release_wrote_is_corrupt(key: str, value: object) -> None:
    with pytest.raises(CorruptError, match=key):
        entry_from_mapping({**entry_to_mapping(Entry()), **json.loads(json.dumps({key: value}))})


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("together", [True, False])
def test_an_older_release_refuses_a_journal_of_which_it_would_ignore_a_decision(state: State, together: bool) -> None:
    under_way = state not in {State.IDLE, State.REPORTING}
    assert journal_version(Entry(state=state, together=together)) == (2 if together and under_way else 1)


def test_a_journal_never_written_is_idle() -> None:
    assert entry_from_mapping(None) == Entry()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([each.name for each in dataclasses.fields(Entry)]), JSON, min_size=1))
def test_a_record_of_something_else_is_only_ever_corrupt(mapping: dict[str, object]) -> None:
    try:
        assert isinstance(entry_from_mapping(json.loads(json.dumps(mapping))), Entry)
    except CorruptError as error:
        assert "update journal" in str(error)  # noqa: PT017 - a valid mapping is fine as well


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_reports_of_something_else_are_only_ever_corrupt(value: object) -> None:
    try:
        assert reports_from_list(value) == ()
    except CorruptError:
        return


def test_reports_survive_json() -> None:
    reports = (Report("1", "7", 3, State.WRITING, done=5), Report("2", "7", 3, State.REPORTING, outcome=Outcome.FAILED))
    assert reports_from_list(json.loads(json.dumps(reports_to_list(reports)))) == reports


def test_entering_a_state_counts_from_one_and_checks_the_table() -> None:
    entry = Entry().enter(State.FETCHING)
    assert (entry.tries, entry.again().tries) == (1, 2)
    with pytest.raises(StateError):
        entry.enter(State.CONFIRMING)


def test_a_slot_holds_one_release_at_a_time() -> None:
    one, two = (Release("r", str(number), SHA, 1, str(number), "tuf") for number in (1, 2))
    entry = Entry().holding("a", one).holding("b", one).holding("a", two)
    assert (entry.in_slot("a"), entry.in_slot("b"), entry.in_slot("c")) == (two, one, None)
    assert entry.holding("a", None).in_slot("a") is None


def test_a_message_is_cut_to_what_a_report_carries() -> None:
    assert len(Entry().ended(Outcome.FAILED, "x", "m" * 5000).message) == 1000
