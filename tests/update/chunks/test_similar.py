"""Regions of the old image: what is gone first, then what looks alike, never more than allowed."""

import random

import pytest

from tests.update.chunks.edits import edited, read_of
from update.chunks.rabin_karp import MakeSums, PureSums
from update.chunks.rabin_karp_numpy import NumpySums
from update.chunks.ranges import Range
from update.chunks.similar import OldContent, join
from update.errors import CorruptError

KIB = 1 << 10
OLD = random.Random(7).randbytes(400 * KIB) + bytes(200 * KIB) + random.Random(8).randbytes(400 * KIB)


@pytest.mark.parametrize("make", [PureSums, NumpySums])
def test_the_place_that_data_came_from_is_found(make: MakeSums) -> None:
    content = OldContent(read_of(OLD), len(OLD), [], make)
    new = edited(OLD[700 * KIB : 760 * KIB], 3, 5, longest=200)
    regions = content.regions(new, 128 * KIB)
    assert sum(region.length for region in regions) <= 128 * KIB
    assert any(region.start <= 704 * KIB and region.end >= 756 * KIB for region in regions)


def test_what_is_gone_is_taken_whole_where_it_fits() -> None:
    gone = [Range(0, 10 * KIB), Range(500 * KIB, 10 * KIB)]
    content = OldContent(read_of(OLD), len(OLD), gone, NumpySums)
    assert content.regions(b"", 20 * KIB) == tuple(gone)
    regions = content.regions(OLD[64 * KIB : 96 * KIB] + OLD[: 32 * KIB], 100 * KIB)
    assert regions == (Range(0, 32 * KIB), Range(64 * KIB, 32 * KIB), Range(500 * KIB, 10 * KIB))


def test_what_is_gone_and_does_not_fit_is_chosen_by_likeness() -> None:
    content = OldContent(read_of(OLD), len(OLD), [Range(0, len(OLD))], NumpySums)
    assert content.regions(OLD[64 * KIB : 96 * KIB], 40 * KIB) == (Range(64 * KIB, 32 * KIB),)


def test_runs_of_one_byte_do_not_vote() -> None:
    content = OldContent(read_of(OLD), len(OLD), [], NumpySums)
    assert content.regions(bytes(100 * KIB), 1 << 20) == ()


def test_an_old_image_that_ends_early_is_named() -> None:
    with pytest.raises(CorruptError):
        OldContent(read_of(OLD[:-1]), len(OLD), [], NumpySums).regions(b"x", 1 << 20)


def test_joined_regions_are_ascending_and_apart() -> None:
    assert join([Range(5, 5), Range(20, 1), Range(0, 5)]) == (Range(0, 10), Range(20, 1))
