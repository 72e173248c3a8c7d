"""Chunks are asked for in bounded requests and come together from any pieces."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.assembly import JOIN_BYTES, Assembly, Waiting, Windfall, between, requests, spans_of
from tests.builders.relayed import index_of, make_zck
from update.chunks.zchunk import HeaderIndex
from update.durable import Disk
from update.errors import ProtocolError
from update.publish.images import write_zchunk


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


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> HeaderIndex:
    """Between chunks of random bytes lie chunks of zeros, which take about 20 bytes."""
    folder = tmp_path_factory.mktemp("gappy")
    dice = random.Random(3)
    (folder / "image").write_bytes(b"".join(dice.randbytes(60_000) + bytes(400_000) for _ in range(6)))
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return index_of(folder / "image.zck").header


def test_a_gap_smaller_than_a_part_s_head_is_asked_for_too(gappy: HeaderIndex) -> None:
    large = [chunk.index for chunk in gappy if chunk.length > 1000]
    spans = spans_of(gappy, large)
    assert len(spans) < len(large) // 2
    brought = sorted({number for span in spans for number in gappy.covering(span.start, span.length)})
    assert brought == sorted((*large, *between(gappy, large)))
    besides = sum(span.length for span in spans) - sum(gappy[number].length for number in large)
    assert 0 < besides <= JOIN_BYTES * (len(large) - len(spans))
    assert list(requests(gappy, large, max_ranges=len(spans))) == [large]


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.sets(st.integers(0, 36), max_size=20), max_size=12), most=st.integers(1, 5))
def test_what_waits_is_given_out_once_and_in_rounds(index: HeaderIndex, steps: list[set[int]], most: int) -> None:
    waiting, model, position = Waiting(index), set[int](), 0
    for numbers in steps:
        waiting.add(numbers)
        model |= numbers
        group = waiting.take(max_ranges=most)
        assert group == sorted(group)
        assert bool(group) == bool(model)
        ahead = {number for number in model if number >= position} or model
        assert not group or group[0] == min(ahead)
        assert len(spans_of(index, group)) <= most
        model -= set(group)
        position = group[-1] + 1 if group else 0
        assert len(waiting) == len(model)
    while group := waiting.take(max_ranges=most):
        model.difference_update(group)
    assert (len(waiting), model) == (0, set())


@settings(max_examples=50, deadline=None)
@given(
    useful=st.sets(st.integers(0, 36)),
    dice=st.randoms(use_true_random=False),
    streams=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 20)), min_size=1, max_size=4),
)
def test_whole_chunks_are_found_in_what_comes_unasked_side_by_side(
    zck: Path, index: HeaderIndex, useful: set[int], dice: random.Random, streams: list[tuple[int, int]]
) -> None:
    content, size = zck.read_bytes(), dice.randrange(500, 200_000)
    windfall, found = Windfall(index, useful.__contains__), list[tuple[int, bytes]]()
    running = [[start, min(start + length, len(content))] for start, length in streams]
    while open_ones := [each for each in running if each[0] < each[1]]:
        each = dice.choice(open_ones)
        end = min(each[1], each[0] + dice.randrange(size // 2 + 1, size + 2))
        windfall.feed(each[0], content[each[0] : end])
        each[0] = end
        found += windfall.take()
    assert all(stored == content[index[number].start :][: index[number].length] for number, stored in found)
    whole = {
        chunk.index
        for start, length in streams
        for chunk in index
        if chunk.length and start <= chunk.start and chunk.start + chunk.length <= start + length
    }
    if len(streams) == 1:
        assert {number for number, _ in found} == whole & useful
    assert {number for number, _ in found} <= useful


def test_chunks_that_never_end_are_let_go(index: HeaderIndex) -> None:
    windfall = Windfall(index, lambda _: True)
    for chunk in list(index)[:30]:
        windfall.feed(chunk.start, b"x")
    assert len(windfall._open) <= 8
