"""Eviction: pure, least recently used first, never what is pinned."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.digest import digest_of
from update.errors import NoSpaceError
from update.store.quota import Held, choose_evictions


def held(name: str, size: int, used: float, *, pinned: bool = False) -> Held:
    return Held("site", Path(name), digest_of(name.encode()), size, used, pinned)


HELD = st.lists(
    st.builds(held, st.text("abcdef", min_size=1, max_size=3), st.integers(0, 50), st.integers(0, 9), pinned=st.booleans()),
    max_size=12,
    unique_by=lambda each: each.sha256,
)


def test_nothing_goes_while_there_is_room() -> None:
    assert choose_evictions([held("a", 10, 1)], needed_bytes=90, quota_bytes=100) == ()


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    stored = [held("new", 40, 9), held("old", 30, 1), held("older", 20, 0)]
    assert [each.file.name for each in choose_evictions(stored, needed_bytes=30, quota_bytes=100)] == ["older"]
    assert [each.file.name for each in choose_evictions(stored, needed_bytes=31, quota_bytes=100)] == ["older", "old"]


def test_a_disk_fuller_than_the_quota_knows_counts_too() -> None:
    stored = [held("a", 40, 1), held("b", 40, 2)]
    assert choose_evictions(stored, needed_bytes=10, quota_bytes=1000, free_bytes=10) == ()
    assert len(choose_evictions(stored, needed_bytes=50, quota_bytes=1000, free_bytes=10)) == 1


def test_what_is_pinned_stays_and_the_refusal_says_how_much_is_missing() -> None:
    with pytest.raises(NoSpaceError, match="5 bytes are missing") as caught:
        choose_evictions([held("a", 60, 0, pinned=True), held("b", 20, 1)], needed_bytes=45, quota_bytes=100)
    assert caught.value.code == "store.no-space"


@given(HELD, st.integers(0, 300), st.integers(0, 300), st.none() | st.integers(0, 300))
def test_the_choice_is_enough_minimal_unpinned_and_ordered(stored: list[Held], needed: int, quota: int, free: int | None) -> None:
    def fits(chosen: list[Held]) -> bool:
        removed = sum(each.size_bytes for each in chosen)
        used = sum(each.size_bytes for each in stored) - removed
        return used + needed <= quota and (free is None or free + removed >= needed)

    unpinned = [each for each in stored if not each.pinned]
    try:
        chosen = list(choose_evictions(stored, needed_bytes=needed, quota_bytes=quota, free_bytes=free))
    except NoSpaceError:
        assert not fits(unpinned)
        return
    assert fits(chosen)
    assert not chosen or not fits(chosen[:-1])
    assert all(not each.pinned for each in chosen)
    kept = [each for each in unpinned if each not in chosen and each.size_bytes]
    assert all(gone.last_used_s <= each.last_used_s for gone in chosen for each in kept)


@given(HELD, st.integers(0, 100))
def test_the_choice_does_not_depend_on_the_order_of_a_folder(stored: list[Held], seed: int) -> None:
    shuffled = list(stored)
    random.Random(seed).shuffle(shuffled)
    quota = sum(each.size_bytes for each in stored if each.pinned)
    assert choose_evictions(stored, needed_bytes=0, quota_bytes=quota) == choose_evictions(
        shuffled, needed_bytes=0, quota_bytes=quota
    )
