import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.peers import need
from tests.update.chunks.models import KINDS, MASK, matching_windows, material, plain_candidates, plain_hash
from update.chunks.rolling import PureSearch, Search, best_search, hash_window, numpy_search, roll
from update.chunks.rolling_numpy import NumpySearch
from update.chunks.table import TABLE

SEARCHES = [PureSearch, NumpySearch]


@given(st.binary(min_size=49, max_size=49))
def test_the_hash_of_a_window_rolls_with_it(data: bytes) -> None:
    assert hash_window(data[:48]) == plain_hash(data[:48])
    assert roll(hash_window(data[:48]), data[0], data[48]) == plain_hash(data[1:])


@pytest.mark.parametrize("make_search", SEARCHES)
@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), size=st.integers(0, 6000), seed=st.integers(0, 1000))
def test_a_search_finds_what_the_definition_says(make_search: Callable[[], Search], kind: str, size: int, seed: int) -> None:
    data = material(kind, size, seed)
    assert make_search().find(data).tolist() == plain_candidates(data)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), size=st.integers(0, 400_000), seed=st.integers(0, 1000))
def test_both_searches_find_the_same_over_many_blocks(kind: str, size: int, seed: int) -> None:
    data = material(kind, size, seed)
    assert PureSearch().find(data) == NumpySearch().find(data)


@pytest.mark.parametrize("make_search", SEARCHES)
def test_a_match_is_found_wherever_it_lies_in_a_block(make_search: Callable[[], Search]) -> None:
    window, search = matching_windows()[0], make_search()
    for edge in (16384, 65536):
        for at in (*range(edge - 50, edge + 3), 2 * edge - 47, 2 * edge):
            data = bytes(at) + window
            assert at + 47 in search.find(data)


@pytest.mark.parametrize("make_search", SEARCHES)
def test_a_search_remembers_nothing(make_search: Callable[[], Search]) -> None:
    search, data = make_search(), material("planted", 100_000, 1)
    assert search.find(data) == search.find(data) == make_search().find(data)
    assert search.find(bytes(100_000)).tolist() == []


def test_no_run_of_one_byte_matches() -> None:
    assert all(plain_hash(bytes([byte]) * 48) & MASK for byte in range(256))


def test_the_table_is_that_of_zchunk() -> None:
    packed = struct.pack("<256I", *TABLE)
    assert hashlib.sha256(packed).hexdigest() == "5b52080d38287da9d2e278466e3e0db7ec98e5e8b226f50612a56fa012b1f660"


@pytest.mark.interop
def test_the_table_is_in_the_installed_library() -> None:
    libraries = sorted(Path("/usr/lib").glob("*/libzck.so.1")) + sorted(Path("/usr/lib").glob("libzck.so.1"))
    need(present=bool(libraries), reason="the library libzck.so.1 is not installed")
    assert libraries[0].read_bytes().count(struct.pack("<256I", *TABLE)) == 1


def test_the_fast_search_is_taken_where_numpy_is() -> None:
    assert numpy_search() is NumpySearch
    assert best_search() is NumpySearch


def test_without_numpy_the_pure_search_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "update.chunks.rolling_numpy", None)
    assert numpy_search() is None
    assert best_search() is PureSearch
