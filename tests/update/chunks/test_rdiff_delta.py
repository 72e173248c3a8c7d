"""Deltas: patch(delta(signature(a), b), a) is b, and what is at hand is copied."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import edited, pairs, read_of
from tests.update.chunks.test_rdiff_signature import signature_of
from update.chunks.rabin_karp import MakeSums, PureSums
from update.chunks.rabin_karp_numpy import NumpySums
from update.chunks.rdiff import apply_delta
from update.chunks.rdiff_delta import write_delta
from update.chunks.rdiff_signature import read_signature
from update.errors import CorruptError


def delta_of(old: bytes, new: bytes, block: int = 0, strong: int = 32, make: MakeSums | None = None) -> bytes:
    out: list[bytes] = []
    signature = read_signature(io.BytesIO(signature_of(old, block, strong)))
    write_delta(signature, read_of(new), len(new), out.append, make_sums=make)
    return b"".join(out)


def patched(old: bytes, delta: bytes, size: int) -> bytes:
    out: list[bytes] = []
    apply_delta(io.BytesIO(delta), read_of(old), len(old), out.append, size=size)
    return b"".join(out)


@pytest.mark.parametrize("make", [PureSums, NumpySums])
@given(pairs(), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_patched_base_is_the_new_file(make: MakeSums, pair: tuple[bytes, bytes], block: int) -> None:
    old, new = pair
    assert patched(old, delta_of(old, new, block, make=make), len(new)) == new


@pytest.mark.parametrize("seed", range(4))
def test_across_segments_too(seed: int) -> None:
    old = random.Random(seed).randbytes(700_000 + seed)
    new = edited(old, seed, 12, longest=60_000)
    delta = delta_of(old, new)
    assert patched(old, delta, len(new)) == new
    assert len(delta) < len(new) // 2


def test_an_equal_file_is_one_copy_and_its_short_last_block_too() -> None:
    old = random.Random(1).randbytes(600_123)
    assert len(delta_of(old, old)) == 4 + 1 + 1 + 4 + 1  # magic, one copy of 8-bit position and 32-bit length, end


def test_equal_blocks_are_one_copy() -> None:
    zeros = bytes(1 << 20)
    assert len(delta_of(zeros, zeros)) < 20


def test_an_insertion_costs_little_more_than_itself() -> None:
    old = random.Random(2).randbytes(300_000)
    delta = delta_of(old, old[:150_000] + random.Random(3).randbytes(50) + old[150_000:])
    assert len(delta) < 50 + 2 * 512 + 40


def test_a_new_file_that_ends_early_is_named() -> None:
    signature = read_signature(io.BytesIO(signature_of(b"")))
    with pytest.raises(CorruptError, match="10 of 11"):
        write_delta(signature, read_of(bytes(10)), 11, lambda _data: None)
