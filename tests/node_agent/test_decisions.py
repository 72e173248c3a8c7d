"""What an order makes of an update under way: judged for every state and every decision heard before."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.decisions import begun, heard, is_bound, objection, refound, waits_for_all, well
from node_agent.record import Entry
from node_agent.source import Cancel, Offer
from node_agent.states import Outcome, State
from tests.node_agent.node import ORDER
from update.wire.assignment import Commit, Lost

LISTENING = (State.FETCHING, State.WRITING, State.PREPARED, State.ACTIVATING, State.RESTARTING, State.TESTING, State.HOLDING)
BEFORE_TRIAL = LISTENING[:4]
FINAL = {Commit.COMMIT, Commit.ABORT}
FURTHER = {Commit.PREPARE: set(Commit), Commit.HOLD: {Commit.HOLD, *FINAL}}


def under_way(state: State, commit: Commit, *, together: bool = True) -> Entry:
    return Entry(state=state, tries=1, action="7", fence=3, highest_fence=3, commit=commit, together=together, lost=Lost.KEEP)


STATES = st.builds(under_way, st.sampled_from(LISTENING), st.sampled_from(Commit), together=st.booleans())
ORDERS = st.builds(
    replace,
    st.just(ORDER),
    action=st.sampled_from("78"),
    commit=st.sampled_from(Commit),
    fence=st.none() | st.integers(0, 6),
    hold_s=st.sampled_from([0, 60]),
)


@pytest.mark.parametrize(("state", "before", "said"), list(product(LISTENING, Commit, Commit)))
def test_a_decision_is_replaced_by_one_that_goes_further_and_by_no_other(state: State, before: Commit, said: Commit) -> None:
    after = heard(under_way(state, before), replace(ORDER, commit=said))
    wanted = said if before not in FINAL and said in FURTHER[before] else before
    assert after.commit is wanted
    if wanted is not Commit.ABORT:
        assert after.state is state, "any other decision is looked at in the state's own step"
    elif state in BEFORE_TRIAL:
        assert (after.state, after.outcome) == (State.REPORTING, Outcome.CANCELLED)
    else:
        assert (after.state, after.outcome) == (State.REVERTING, None)


@settings(max_examples=100, deadline=None)
@given(STATES, ORDERS)
def test_an_older_lease_changes_nothing_and_no_lease_is_forgotten(entry: Entry, order: Offer) -> None:
    after = heard(entry, order)
    assert after.highest_fence == max(entry.highest_fence, (order.fence or 0) if order.action == entry.action else 0)
    if order.fence is not None and order.fence < entry.highest_fence:
        assert after == entry
        assert objection(entry, order) is not None


ANYTHING = (*(replace(ORDER, action=action, commit=commit, fence=9) for action, commit in product("78", Commit)), None)


@pytest.mark.parametrize("state", LISTENING)
@pytest.mark.parametrize("order", [*ANYTHING, Cancel("7", "c7"), Cancel("8", "c8")])
def test_what_was_decided_for_all_has_no_end_but_its_own(state: State, order: Offer | Cancel | None) -> None:
    entry = under_way(state, Commit.COMMIT)
    after = heard(entry, order)
    assert is_bound(entry)
    assert (after.state, after.outcome, after.commit) == (state, None, Commit.COMMIT)


@pytest.mark.parametrize(("fence", "highest"), [(None, 5), (5, 5), (6, 6)])
def test_a_new_order_forgets_no_lease(fence: int | None, highest: int) -> None:
    assert begun(Entry(action="6", highest_fence=5), replace(ORDER, fence=fence)).highest_fence == highest


@pytest.mark.parametrize("state", LISTENING)
@pytest.mark.parametrize("commit", Commit)
def test_a_cancellation_is_followed_unless_it_was_decided_to_keep(state: State, commit: Commit) -> None:
    after = heard(under_way(state, commit), Cancel("7", "c7"))
    if commit is Commit.COMMIT:
        assert after.state is state
    else:
        assert after.state is (State.REPORTING if state in BEFORE_TRIAL else State.REVERTING)
    assert heard(under_way(state, commit), Cancel("8", "c8")).state is state


@pytest.mark.parametrize("commit", Commit)
def test_only_a_decision_to_keep_leads_from_a_good_test_to_its_confirmation(commit: Commit) -> None:
    following = {
        Commit.PREPARE: State.HOLDING,
        Commit.HOLD: State.HOLDING,
        Commit.COMMIT: State.CONFIRMING,
        Commit.ABORT: State.REVERTING,
    }
    assert well(under_way(State.TESTING, commit), 5).state is following[commit]


@pytest.mark.parametrize(("commit", "together"), list(product(Commit, [True, False])))
def test_the_end_is_not_this_device_s_own_until_it_is_decided(commit: Commit, together: bool) -> None:
    assert waits_for_all(under_way(State.TESTING, commit, together=together)) == (together and commit is not Commit.COMMIT)


@settings(max_examples=100, deadline=None)
@given(STATES, st.sampled_from(["", "7", "8"]), st.none() | st.sampled_from(Outcome), st.integers(0, 6))
def test_a_trial_found_without_its_journal_is_held_and_never_below_a_lease_seen(
    kept: Entry, last_action: str, ended: Outcome | None, highest: int
) -> None:
    last = Entry(action=last_action, outcome=ended, highest_fence=highest)
    found = refound(last, kept)
    if not kept.together or (last_action == "7" and ended is not None):
        assert found is None
    else:
        assert found is not None
        assert (found.state, found.commit, found.action, found.lost) == (State.TESTING, Commit.HOLD, "7", Lost.KEEP)
        assert found.highest_fence == max(3, highest)
