"""Chunks are asked for in bounded requests and come together from any pieces."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.assembly import Assembly, requests
from tests.builders.relayed import index_of, make_zck
from update.chunks.zchunk import HeaderIndex
from update.errors import ProtocolError


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def index(zck: Path) -> HeaderIndex:
    return index_of(zck).header


@settings(max_examples=50, deadline=None)
@given(numbers=st.sets(st.integers(0, 36)), most=st.integers(1, 9))
def test_every_chunk_is_in_one_request_of_bounded_ranges(index: HeaderIndex, numbers: set[int], most: int) -> None:
    groups = list(requests(index, sorted(numbers), max_ranges=most))
    assert [number for group in groups for number in group] == sorted(numbers)
    spans = [Assembly(index, group).spans for group in groups]
    assert all(1 <= len(each) <= most for each in spans)
    assert all(len(each) == most for each in spans[:-1]), "no request is begun before one is full"


@settings(max_examples=50, deadline=None)
@given(numbers=st.sets(st.integers(0, 36), min_size=1), seed=st.integers(0, 1 << 32), size=st.integers(500, 200_000))
def test_whatever_the_pieces_each_chunk_comes_once_and_whole(
    zck: Path, index: HeaderIndex, numbers: set[int], seed: int, size: int
) -> None:
    """Ranges in any order; pieces that begin before what came last, and run on behind their range."""
    content, dice = zck.read_bytes(), random.Random(seed)
    assembly, found = Assembly(index, sorted(numbers)), list[tuple[int, bytes]]()
    for span in dice.sample(assembly.spans, len(assembly.spans)):
        at = span.start
        while at < span.end:
            start, end = max(0, at - dice.choice([0, 0, 7])), at + dice.randrange(size // 2 + 1, size + 2)
            assembly.feed(start, content[start:end])
            at = end
        found += assembly.take()
    assert assembly.take() == []
    assert len(found) == len(numbers)
    assert dict(found) == {number: content[index[number].start :][: index[number].length] for number in numbers}


def test_bytes_left_out_within_a_chunk_are_refused(zck: Path, index: HeaderIndex) -> None:
    content, chunk = zck.read_bytes(), index[3]
    assembly = Assembly(index, [3])
    assembly.feed(chunk.start, content[chunk.start : chunk.start + 10])
    with pytest.raises(ProtocolError, match="left out"):
        assembly.feed(chunk.start + 11, content[chunk.start + 11 : chunk.start + 20])


def test_bytes_that_nobody_asked_for_are_dropped(zck: Path, index: HeaderIndex) -> None:
    content, chunk = zck.read_bytes(), index[3]
    assembly = Assembly(index, [3])
    for other in (0, 2, 4, 30):
        assembly.feed(index[other].start, content[index[other].start :][: index[other].length])
    assert assembly.take() == []
    assembly.feed(0, content)
    assert (assembly.ready_bytes, assembly.take()) == (chunk.length, [(3, content[chunk.start :][: chunk.length])])
