"""How long a trial is held: whatever the clocks do, at least nothing and at most the whole time is left."""

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.countdown import Countdown
from tests.node_agent.node import Time
from update.wire.assignment import MAX_HOLD_S

HOLDS = st.integers(1, MAX_HOLD_S)
JUMPS = st.floats(-1e9, 1e9)
PASSING = st.floats(0, 1e6)


def countdown(time: Time) -> Countdown:
    return Countdown(lambda: int(time.wall_s * 1000), lambda: time.monotonic_s)


@settings(max_examples=100, deadline=None)
@given(HOLDS, st.lists(st.tuples(PASSING, JUMPS), max_size=6))
def test_within_a_process_only_the_time_that_passes_counts(hold_s: int, moments: list[tuple[float, float]]) -> None:
    time = Time()
    counting = countdown(time)
    until = counting.begin(hold_s)
    begun_s = time.monotonic_s
    for passes_s, jumps_s in moments:
        time.monotonic_s += passes_s
        time.wall_s += jumps_s
        assert counting.is_over(hold_s, until) == (time.monotonic_s - begun_s >= hold_s)


@settings(max_examples=100, deadline=None)
@given(HOLDS, JUMPS)
def test_from_one_process_to_the_next_no_clock_makes_it_longer(hold_s: int, away_s: float) -> None:
    time = Time(wall_s=2e9)
    until = countdown(time).begin(hold_s)
    time.wall_s += away_s
    time.monotonic_s = 3.0
    counting = countdown(time)
    assert counting.is_over(hold_s, until) == (int(time.wall_s * 1000) >= until)
    time.monotonic_s += hold_s
    assert counting.is_over(hold_s, until)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**62), PASSING)
def test_without_a_limit_it_is_never_over(until: int, passes_s: float) -> None:
    time = Time()
    counting = countdown(time)
    counting.begin(0)
    time.passes(passes_s)
    assert not counting.is_over(0, until)
