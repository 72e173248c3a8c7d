"""Patience and retries, over numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.update.wire.scripted import Sleeps
from update.errors import SlowError
from update.wire.rate import Patience, RateGuard, Retry

PATIENCE = Patience(window_s=10, minimum_bytes_per_s=100)


def test_a_peer_at_the_minimum_rate_is_never_refused() -> None:
    guard = RateGuard(PATIENCE, "peer")
    for _ in range(1000):
        guard.note(1, 100)


def test_a_peer_below_the_minimum_rate_is_refused_at_the_end_of_its_window() -> None:
    guard = RateGuard(PATIENCE, "peer")
    for _ in range(9):
        guard.note(1, 99)
    with pytest.raises(SlowError, match="99 bytes/s") as caught:
        guard.note(1, 99)
    assert caught.value.code == "wire.slow"


def test_a_fast_beginning_does_not_pay_for_a_stall_later() -> None:
    guard = RateGuard(PATIENCE, "peer")
    guard.note(10, 1_000_000)
    with pytest.raises(SlowError):
        guard.note(10, 0)


def test_time_in_which_we_were_busy_ourselves_does_not_count() -> None:
    guard = RateGuard(PATIENCE, "peer")
    for _ in range(100):
        guard.note(0.0, 1)
    assert guard.allowance_s() == 10


def test_a_small_answer_has_a_deadline_whatever_its_rate() -> None:
    guard = RateGuard(PATIENCE, "peer", total_s=15)
    guard.note(10, 1_000_000)
    assert guard.allowance_s() == 5
    with pytest.raises(SlowError):
        guard.note(5, 1_000_000)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 5000)), max_size=50))
def test_the_allowance_is_always_a_time_to_wait(notes: list[tuple[float, int]]) -> None:
    guard = RateGuard(PATIENCE, "peer", total_s=60)
    try:
        for waited, received in notes:
            guard.note(waited, received)
            assert 0 < guard.allowance_s() <= PATIENCE.window_s
    except SlowError:
        return


async def test_the_limit_of_the_delay_doubles_up_to_the_longest() -> None:
    sleeps = Sleeps()
    retry = Retry(first_s=1, longest_s=10, sleep=sleeps, chance=lambda: 1.0)
    for failures in range(1, 7):
        await retry.pause(failures)
    assert sleeps.delays == [1, 2, 4, 8, 10, 10]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_delay_is_somewhere_between_nothing_and_its_limit(failures: int, chance: float) -> None:
    assert 0 <= Retry(chance=lambda: chance).delay_s(failures) <= 30
