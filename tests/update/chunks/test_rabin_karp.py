"""Both ways to compute RabinKarp agree with its definition, rolled byte by byte."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.chunks.rabin_karp import MULTIPLIER, MakeSums, PureSums, best_sums, powers, weak_sum
from update.chunks.rabin_karp_numpy import NumpySums

MAKERS: tuple[MakeSums, ...] = (PureSums, NumpySums)


def defined(data: bytes) -> int:
    value = 1
    for byte in data:
        value = (value * MULTIPLIER + byte) % (1 << 32)
    return value


@given(st.binary(max_size=600))
def test_the_sum_of_a_block_is_the_definition(data: bytes) -> None:
    assert weak_sum(data) == defined(data)


def test_a_known_value() -> None:
    assert defined(b"") == 1
    assert weak_sum(b"\0") == MULTIPLIER
    assert list(powers(MULTIPLIER, 2)) == [1, MULTIPLIER]


@pytest.mark.parametrize("make", MAKERS)
@given(st.binary(max_size=900), st.integers(1, 100))
@settings(max_examples=60)
def test_every_full_block_has_its_sum(make: MakeSums, data: bytes, size: int) -> None:
    expected = [defined(data[at : at + size]) for at in range(0, len(data) - size + 1, size)]
    assert list(make(size, (), 1).of_blocks(data)) == expected


@pytest.mark.parametrize("make", MAKERS)
@given(st.binary(max_size=300), st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_known_windows_are_found_wherever_they_are(make: MakeSums, data: bytes, size: int, draw: st.DataObject) -> None:
    windows = [defined(data[at : at + size]) for at in range(len(data) - size + 1)]
    some: Iterable[int] = draw.draw(st.lists(st.sampled_from(windows), max_size=5)) if windows else []
    positions, sums = make(size, [*some, 7], 300).find(data)
    known = {*some, 7}
    assert [*zip(positions, sums, strict=True)] == [(at, value) for at, value in enumerate(windows) if value in known]


def test_numpy_is_taken_where_it_is() -> None:
    assert best_sums() is NumpySums
