"""Pair patches: apply(create(a, b), a) is b, within the memory that was asked for, and small."""

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import edited, pairs
from tests.update.chunks.indexed import indexed
from update.chunks.patch import HEAD, apply_patch, read_head
from update.chunks.patch_build import Image, create_patch, write_patch
from update.chunks.rabin_karp import MakeSums, PureSums
from update.chunks.rabin_karp_numpy import NumpySums
from update.durable import Disk
from update.errors import CorruptError, LimitError

SMALL = 1 << 16


def patch_of(old: Image, new: Image, memory: int = SMALL, make: MakeSums | None = None) -> bytes:
    out: list[bytes] = []
    write_patch(old, new, out.append, memory_bytes=memory, make_sums=make)
    return b"".join(out)


def applied(patch: bytes, old: Image, new: Image, memory: int = SMALL) -> bytes:
    out: list[bytes] = []
    apply_patch(io.BytesIO(patch), old.read, old.size, out.append, size=new.size, memory_bytes=memory)
    return b"".join(out)


@pytest.mark.parametrize("make", [PureSums, NumpySums])
@given(pairs(), st.sampled_from([16, 100, 1000]))
@settings(max_examples=25, deadline=None)
def test_the_patched_image_is_the_new_one(make: MakeSums, pair: tuple[bytes, bytes], piece: int) -> None:
    old, new = (indexed(data, piece=piece) for data in pair)
    assert applied(patch_of(old, new, make=make), old, new) == pair[1]


@pytest.mark.parametrize("seed", range(4))
def test_many_windows_make_one_image(seed: int) -> None:
    data = random.Random(seed).randbytes(600_000) + bytes(300_000)
    new = edited(data, seed, 60, longest=9000)
    old_image, new_image = indexed(data), indexed(new)
    patch = patch_of(old_image, new_image, 1 << 18)
    assert applied(patch, old_image, new_image, 1 << 18) == new
    assert len(patch) < len(new) // 2


def test_a_change_within_a_chunk_costs_little_more_than_itself() -> None:
    data = random.Random(3).randbytes(2 << 20)
    new = data[: 1 << 20] + b"fifty bytes that are new in the middle of the image" + data[1 << 20 :]
    old_image, new_image = indexed(data), indexed(new)
    assert len(patch_of(old_image, new_image, 1 << 20)) < HEAD.size + 300


def test_an_image_that_has_moved_costs_nothing_but_what_is_before_it() -> None:
    data = random.Random(4).randbytes(1 << 20)
    old_image, new_image = indexed(data, piece=4096), indexed(random.Random(5).randbytes(4096) + data, piece=4096)
    assert len(patch_of(old_image, new_image)) < 4096 + 300


def test_the_head_asks_for_no_more_than_was_allowed() -> None:
    image = indexed(bytes(100))
    assert read_head(io.BytesIO(patch_of(image, image, 1 << 20))).needed_bytes <= 1 << 20


@pytest.mark.parametrize("memory", [0, (1 << 16) - 1, (256 << 20) + 1])
def test_memory_that_makes_no_sense_is_refused(memory: int) -> None:
    image = indexed(b"data")
    with pytest.raises(LimitError, match="make sense"):
        patch_of(image, image, memory)


def test_an_image_that_is_not_what_its_index_says_is_named() -> None:
    old, new = indexed(b"old"), indexed(b"new, and longer")
    with pytest.raises(CorruptError):
        patch_of(old, Image(new.index, lambda _offset, _size: b""))


def test_a_patch_is_made_durably_or_not_at_all(tmp_path: Path) -> None:
    old, new = indexed(b"old" * 1000), indexed(b"new" * 1000)
    out = tmp_path / "patch"
    assert create_patch(old, new, out, Disk(), memory_bytes=SMALL) == out.stat().st_size
    assert applied(out.read_bytes(), old, new) == b"new" * 1000
    with pytest.raises(CorruptError):
        create_patch(old, Image(new.index, lambda _offset, _size: b""), tmp_path / "other", Disk())
    assert [file.name for file in tmp_path.iterdir()] == ["patch"]


def test_what_is_at_the_beginning_of_a_large_dictionary_is_found() -> None:
    old = random.Random(4).randbytes(900_000)
    new = b"".join(old[at : at + 30_000] + b"edited" for at in range(0, len(old), 30_000))
    assert len(patch_of(indexed(old), indexed(new), memory=4 << 20)) < 10_000
