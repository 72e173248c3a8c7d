"""Versions compare as the real swupdate compares them (the interop test asks it)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.version import compare_versions

ORDERED = [
    ("1.2", "1.10"),
    ("1.2.3", "1.2.3.1"),
    ("1.0.65535", "1.1"),
    ("0.2", "65536.1"),  # too large for the old style: a semantic version
    ("1.0.2", "1..2"),
    ("1.0.0-rc1", "1.0.0"),
    ("1.0.0-alpha", "1.0.0-alpha.1"),
    ("1.0.0-alpha.1", "1.0.0-alpha.beta"),
    ("1.0.0-beta.2", "1.0.0-beta.11"),
    ("1.0.0-rc.1", "1.0.0"),
    ("1.2-rc1", "1.2.1"),
    ("2024.05-debian", "2024.10-debian"),
    ("v1.10", "v1.2"),  # not a semantic version: byte by byte
    ("release_9", "release_91"),
]
EQUAL = [
    ("1.2", "1.2.0.0"),
    ("1.2.0.0", "1.2.0.0.9"),
    ("1.2.3+build1", "1.2.3+build2"),
    ("01.2", "1.2"),
    ("1..2", "1.2"),
    ("1.0.0-a", "1.0.0-a"),
    ("", ""),
]


@pytest.mark.parametrize(("older", "newer"), ORDERED)
def test_an_older_version_is_older(older: str, newer: str) -> None:
    assert compare_versions(older, newer) == -1
    assert compare_versions(newer, older) == 1


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_versions_that_differ_only_in_what_does_not_count_are_equal(left: str, right: str) -> None:
    assert compare_versions(left, right) == 0


def test_a_number_beyond_the_machine_word_wraps_as_in_c_and_costs_nothing() -> None:
    assert compare_versions("18446744073709551616.1", "0.1") == -1
    assert compare_versions("9" * 100_000, "0") == 1  # too long for a semantic version: byte by byte


@settings(max_examples=100)
@given(st.text(max_size=20), st.text(max_size=20))
def test_comparison_never_fails_and_is_antisymmetric(left: str, right: str) -> None:
    assert compare_versions(left, right) == -compare_versions(right, left)


@settings(max_examples=100)
@given(st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9]{1,4})?", fullmatch=True), st.data())
def test_comparison_of_semantic_versions_is_transitive(first: str, data: st.DataObject) -> None:
    same_form = st.from_regex(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(-[a-z0-9]{1,4})?", fullmatch=True)
    second, third = data.draw(same_form), data.draw(same_form)
    ordered = sorted([first, second, third])
    if compare_versions(ordered[0], ordered[1]) <= 0 and compare_versions(ordered[1], ordered[2]) <= 0:
        assert compare_versions(ordered[0], ordered[2]) <= 0
