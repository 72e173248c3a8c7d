import hashlib
import os
import random
import threading
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.models import KINDS, matching_windows, material, reference_cuts, twice_matching
from update.chunks.chunker import MAX_BYTES, MIN_BYTES, SEGMENT_BYTES, Read, cut_image, file_reader, index_image, next_cut
from update.chunks.rolling import PureSearch, Search
from update.chunks.rolling_numpy import NumpySearch
from update.errors import CorruptError, StoreError

recipes = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(1, 60_000), st.integers(0, 99)).map(lambda recipe: material(*recipe)),
    max_size=5,
).map(b"".join)


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def cuts_of(data: bytes, make_search: Callable[[], Search]) -> list[int]:
    return [offset + len(piece) for offset, piece in cut_image(reader(data), len(data), make_search=make_search)]


@settings(max_examples=40, deadline=None)
@given(recipes)
def test_both_searches_cut_as_the_state_machine_does(data: bytes) -> None:
    expected = reference_cuts(data)
    assert cuts_of(data, NumpySearch) == expected
    assert cuts_of(data, PureSearch) == expected


def test_the_byte_after_a_refused_match_is_fed_twice() -> None:
    dice = random.Random(5)
    for extended in twice_matching():
        matched = MIN_BYTES + 2 - 5  # refused here, and matched again by the impure window where a cut is allowed
        data = dice.randbytes(matched - 47) + extended + dice.randbytes(20_000)
        assert reference_cuts(data)[0] == matched + 4, "the model does not reach the corner"
        assert cuts_of(data, NumpySearch) == reference_cuts(data)


@pytest.mark.parametrize("size", [0, 1, 47, 48, 8191, 8192, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES])
@pytest.mark.parametrize("kind", ["zeros", "random", "planted"])
def test_small_images_and_edges(size: int, kind: str) -> None:
    data = material(kind, size, size)
    assert cuts_of(data, NumpySearch) == cuts_of(data, PureSearch) == reference_cuts(data)


def test_zeros_are_cut_at_the_maximum() -> None:
    assert cuts_of(bytes(2 * MAX_BYTES + 1), NumpySearch) == [MAX_BYTES, 2 * MAX_BYTES, 2 * MAX_BYTES + 1]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_segments_and_threads_do_not_show(workers: int) -> None:
    data = b"".join(material(kind, 500_000, 3) for kind in KINDS) + material("planted", SEGMENT_BYTES, 4)
    expected = reference_cuts(data)
    for make_search in (NumpySearch, PureSearch):
        pieces = list(index_image(reader(data), len(data), make_search=make_search, workers=workers))
        assert [offset + size for offset, size, _ in pieces] == expected
        assert all(digest == hashlib.sha256(data[at : at + size]).digest() for at, size, digest in pieces)


@pytest.mark.parametrize("at", [SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 46])
def test_a_match_across_the_edge_of_a_segment_cuts(at: int) -> None:
    first, second = matching_windows()[:2]
    data = bytes(50_000) + first + bytes(at - 50_000 - 2 * len(first) + 1) + second + bytes(10_000)
    assert at in reference_cuts(data)
    assert cuts_of(data, NumpySearch) == cuts_of(data, PureSearch) == reference_cuts(data)


def test_the_next_cut_needs_only_the_data_of_one_chunk() -> None:
    data = material("planted", 400_000, 9)
    hits = PureSearch().find(data)
    start = 0
    for cut in reference_cuts(data)[:-1]:
        if len(data) - start > MAX_BYTES:
            short = data[start : start + MAX_BYTES + 1]
            assert next_cut(short, 0, array("I", [at - start for at in hits if start <= at < start + len(short)])) == cut - start
        start = cut


@pytest.mark.parametrize("make_search", [NumpySearch, PureSearch])
def test_memory_does_not_grow_with_the_image(make_search: Callable[[], Search]) -> None:
    block = random.Random(1).randbytes(SEGMENT_BYTES)

    def read(offset: int, size: int) -> bytes:
        at = offset % SEGMENT_BYTES
        return (block[at:] + block)[:size]

    tracemalloc.start()
    try:
        count = sum(1 for _ in index_image(read, 64 << 20, make_search=make_search, workers=2))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 1000
    assert peak < 24 << 20


def test_an_image_that_ends_early_is_refused() -> None:
    data = material("random", 3 * SEGMENT_BYTES, 1)
    for workers in (1, 2):
        with pytest.raises(CorruptError):
            list(index_image(reader(data), len(data) + 1, workers=workers))


def test_an_abandoned_iteration_ends_its_threads() -> None:
    data = material("random", 8 * SEGMENT_BYTES, 2)
    pieces = cut_image(reader(data), len(data), make_search=NumpySearch, workers=2)
    next(pieces)
    before = threading.active_count()
    del pieces
    assert threading.active_count() < before


def test_a_file_is_read_at_its_positions(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(material("random", 100_000, 3))
    with (tmp_path / "image").open("rb") as file:
        read = file_reader(file.fileno())
        assert read(10, 20) == material("random", 100_000, 3)[10:30]
        assert read(99_990, 100) == material("random", 100_000, 3)[99_990:]
    closed = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StoreError):
            file_reader(closed)(0, 10)
    finally:
        os.close(closed)
