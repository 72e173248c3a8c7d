import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.chunks.fields import Compression, HashType
from update.chunks.header import HeaderBuilder
from update.chunks.plan import Copy, DeltaPlan, Fetch, Reuse, Source, Zero, merge, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex, parse_header
from update.errors import UnsupportedError

SIZES = (1, 7, 500, 8192, 65536, 65537, 131072)


def piece(number: int) -> bytes:
    """One of some dozen different chunks; every third is zeros."""
    size = SIZES[number % len(SIZES)]
    return bytes(size) if number % 3 == 0 else random.Random(number).randbytes(size)


def index_of(pieces: list[bytes]) -> HeaderIndex:
    """The header of a file that stores the pieces plainly, so that the body is the image."""
    builder = HeaderBuilder(Compression.NONE)
    for data in pieces:
        digest = hashlib.sha256(data).digest()
        builder.add(compressed_digest=digest, digest=digest, length=len(data), size=len(data))
    return parse_header(builder.build())


def apply(plan: DeltaPlan, old: bytes, file: bytes) -> tuple[bytes, set[int]]:
    """The image, and the numbers of the bytes of `file` that it took, only from the ranges of the plan."""
    image, taken = bytearray(), set[int]()
    allowed = {at for part in plan.ranges for at in range(part.start, part.end)}
    for step in plan.steps:
        chunk = step.chunk
        assert len(image) == chunk.offset
        match step:
            case Reuse(source_offset=at):
                image += old[at : at + chunk.size]
            case Copy(image_offset=at):
                image += image[at : at + chunk.size]
            case Zero():
                image += bytes(chunk.size)
            case Fetch():
                wanted = set(range(chunk.start, chunk.start + chunk.length))
                assert wanted <= allowed, "a chunk outside the ranges"
                assert not wanted & taken, "a chunk fetched twice"
                taken |= wanted
                image += file[chunk.start : chunk.start + chunk.length]
    assert taken == allowed, "more fetched than used"
    return bytes(image), taken


numbers = st.lists(st.integers(0, 30), max_size=20)


@settings(max_examples=60, deadline=None)
@given(old=numbers, new=numbers)
def test_a_plan_applied_is_the_image(old: list[int], new: list[int]) -> None:
    old_pieces, pieces = [piece(n) for n in old], [piece(n) for n in new]
    index = index_of(pieces)
    plan = plan_delta(index, Source.of_index(index_of(old_pieces)))
    image, taken = apply(plan, b"".join(old_pieces), index.raw + b"".join(pieces))
    assert image == b"".join(pieces)
    assert plan.fetch_bytes == len(taken)
    missing = {data for data in pieces if data.strip(b"\0")} - set(old_pieces)
    assert plan.fetch_bytes == sum(map(len, missing))
    assert plan.fetch_chunks == len(missing)
    assert plan.zero_bytes == sum(len(data) for data in pieces if not data.strip(b"\0"))
    assert plan.reuse_bytes + plan.copy_bytes + plan.zero_bytes + plan.fetched_size == index.image_size


@settings(max_examples=60, deadline=None)
@given(old=numbers, new=numbers)
def test_ranges_are_ascending_with_gaps_between_them(old: list[int], new: list[int]) -> None:
    plan = plan_delta(index_of([piece(n) for n in new]), Source.of_index(index_of([piece(n) for n in old])))
    assert all(part.length > 0 for part in plan.ranges)
    assert all(before.end < after.start for before, after in pairwise(plan.ranges))


def test_the_same_image_needs_nothing() -> None:
    index = index_of([piece(n) for n in range(10)])
    plan = plan_delta(index, Source.of_index(index))
    assert (plan.ranges, plan.fetch_bytes) == ((), 0)


def test_a_source_takes_what_the_chunker_gives() -> None:
    data = piece(1)
    plan = plan_delta(index_of([data]), Source([(4096, len(data), hashlib.sha256(data).digest())]))
    assert [(type(step), step.source_offset) for step in plan.steps if isinstance(step, Reuse)] == [(Reuse, 4096)]


def test_a_chunk_at_hand_with_another_size_is_not_used() -> None:
    data = piece(1)
    plan = plan_delta(index_of([data]), Source([(0, len(data) + 1, hashlib.sha256(data).digest())]))
    assert plan.fetch_chunks == 1


def test_zeros_of_any_size_are_recognised_without_a_source() -> None:
    index = index_of([bytes(size) for size in (0, 1, 65535, 65536, 65537, 131072, 10 << 20)])
    plan = plan_delta(index, Source())
    assert {type(step) for step in plan.steps} == {Zero}
    assert plan.zero_bytes == index.image_size


def test_a_plan_can_be_walked_twice() -> None:
    plan = plan_delta(index_of([piece(1), piece(2), piece(1)]), Source())
    assert list(plan.steps) == list(plan.steps)
    assert [type(step) for step in plan.steps] == [Fetch, Fetch, Copy]


def test_a_header_without_digests_of_the_image_cannot_be_planned() -> None:
    short = HashType.SHA512_128.digest(b"")
    index = b"\x83\x82" + (short + b"\x80\x80") + (short + b"\x81\x81")
    rest = bytes(32) + b"\x80\x82" + bytes([0x80 | len(index)]) + index + b"\x80"
    lead = b"\0ZCK1\x81" + bytes([0x80 | len(rest)])
    header = parse_header(lead + hashlib.sha256(lead + rest).digest() + rest)
    with pytest.raises(UnsupportedError):
        plan_delta(header, Source())
    with pytest.raises(UnsupportedError):
        Source.of_index(header)


def test_adjacent_ranges_become_one() -> None:
    assert merge([Range(0, 5), Range(5, 1), Range(6, 0), Range(7, 2)]) == (Range(0, 6), Range(7, 2))
