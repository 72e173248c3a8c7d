"""Applying pair patches: every hostile one is refused by name, before anything is allocated for it."""

import hashlib
import io
import random
import struct
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import read_of
from tests.update.chunks.indexed import indexed
from tests.update.chunks.test_patch_build import SMALL, applied, patch_of
from update.chunks.patch import MAX_MEMORY_BYTES, WINDOW, Head, apply_patch, read_head
from update.chunks.patch_window import Kind, Piece, write_control
from update.chunks.ranges import Range
from update.errors import BundleError, ChunkError, LimitError, StoreError, UnsupportedError

OLD = random.Random(1).randbytes(5000)
NEW = OLD[:2000] + b"inserted" + OLD[2000:] + bytes(500)
PATCH = patch_of(indexed(OLD, piece=500), indexed(NEW, piece=500))


def apply(patch: bytes, *, size: int = len(NEW), old: bytes = OLD, memory: int = SMALL) -> bytes:
    out: list[bytes] = []
    apply_patch(io.BytesIO(patch), read_of(old), len(old), out.append, size=size, memory_bytes=memory)
    return b"".join(out)


def crafted(stored: bytes, literal_bytes: int, *pieces: Piece, head: Head | None = None) -> bytes:
    """A patch of one window, to an image of 10 bytes."""
    control = write_control((), pieces)
    window = WINDOW.pack(len(control), literal_bytes, len(stored), bytes(32))
    return (head or Head(1000, 1000, len(OLD), 10)).packed() + window + control + stored


TEN = Piece(Kind.LITERAL, 10)
FRAME = zstandard.ZstdCompressor().compress(b"0123456789")


def test_the_patch_of_these_tests_is_good() -> None:
    assert apply(PATCH) == NEW


@pytest.mark.parametrize(
    ("patch", "error", "words"),
    [
        (b"", ChunkError, "its head: 0 of 30"),
        (b"FRPQ" + PATCH[4:], ChunkError, "46525051"),
        (PATCH[:4] + b"\0\2" + PATCH[6:], UnsupportedError, "format 2"),
        (Head(1 << 26, 1 + (1 << 26), 1, 1).packed(), LimitError, "the limit is 268435456"),
        (Head(1 << 26, 1, 1, 1).packed(), LimitError, "65536 are allowed"),
        (Head(1, 1, 4999, 10).packed(), ChunkError, "from 4999 to 10"),
        (Head(1, 1, 5000, 11).packed(), ChunkError, "to 11 bytes"),
        (Head(1, 1, 5000, 10).packed(), ChunkError, "cut short in the head of a window"),
        (Head(1, 9, 5000, 10).packed() + WINDOW.pack(9, 10, 9, bytes(32)), LimitError, "10 literal"),
        (Head(1, 99, 5000, 10).packed() + WINDOW.pack(1 << 31, 10, 9, bytes(32)), LimitError, "2147483648 control"),
        (Head(1, 99, 5000, 10).packed() + WINDOW.pack(9, 10, 99, bytes(32)), LimitError, "99 stored"),
        (crafted(FRAME, 10, TEN), ChunkError, "a window became"),
        (crafted(FRAME, 11, TEN), ChunkError, "take 10 literal bytes"),
        (crafted(FRAME, 11, Piece(Kind.LITERAL, 11)), LimitError, "a window of 11 bytes"),
        (crafted(b"x" * 20, 10, TEN), ChunkError, "no zstd frame"),
        (crafted(zstandard.ZstdCompressor().compress(bytes(1 << 30 >> 5)), 10, TEN), LimitError, "stored"),
        (crafted(zstandard.ZstdCompressor().compress(bytes(5000)), 10, TEN), ChunkError, "announces 5000 bytes"),
        (crafted(zstandard.ZstdCompressor(write_content_size=False).compress(b"0" * 10), 10, TEN), ChunkError, "announces -1"),
        (crafted(b"x", 0, Piece(Kind.ZERO, 10)), ChunkError, "without literal ones"),
        (crafted(b"", 0, Piece(Kind.COPY, 10, 4991)), ChunkError, "another one"),
        (crafted(b"", 0, Piece(Kind.ZERO, 1 << 60)), LimitError, "10 and 1000 are allowed"),
    ],
)
def test_a_hostile_patch_is_refused_by_name(patch: bytes, error: type[BundleError], words: str) -> None:
    with pytest.raises(error, match=words):
        apply(patch, size=10 if patch[:4] == b"FRPP" and patch[4:6] == b"\0\1" else len(NEW))


def test_what_follows_the_last_window_is_refused() -> None:
    with pytest.raises(ChunkError, match="goes on"):
        apply(PATCH + b"x")


def test_a_dictionary_above_the_head_is_refused() -> None:
    control = write_control([*_regions(1001)], [TEN])
    window = WINDOW.pack(len(control), 10, len(FRAME), bytes(32))
    with pytest.raises(LimitError, match="1001 of dictionary"):
        apply(Head(1000, 1000, len(OLD), 10).packed() + window + control + FRAME, size=10)


def _regions(size: int) -> list[Range]:
    return [Range(0, size)]


@pytest.mark.parametrize("cut", [1, 29, 30, 60, 75, len(PATCH) - 1])
def test_a_patch_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ChunkError, match="cut short"):
        apply(PATCH[:cut])


def test_a_damaged_old_image_is_found() -> None:
    for at in (0, 1999, 4999):
        damaged = bytearray(OLD)
        damaged[at] ^= 1
        with pytest.raises(ChunkError, match=r"damaged|no zstd frame"):
            apply(PATCH, old=bytes(damaged))


def test_an_old_image_that_shrinks_is_named() -> None:
    with pytest.raises(StoreError):
        apply_patch(io.BytesIO(PATCH), read_of(OLD[:100]), len(OLD), lambda _: None, size=len(NEW), memory_bytes=SMALL)


def test_a_patch_for_more_memory_than_this_node_has_is_refused() -> None:
    image = indexed(OLD)
    with pytest.raises(LimitError, match="memory"):
        applied(patch_of(image, image, 1 << 20), image, image, 1 << 19)


def test_nobody_may_ask_for_more_than_the_greatest_memory() -> None:
    with pytest.raises(LimitError):
        read_head(io.BytesIO(struct.pack(">4sHIIQQ", b"FRPP", 1, MAX_MEMORY_BYTES // 2, 1, 1, 1)))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_patch_is_refused_by_name(data: st.DataObject) -> None:
    damaged = bytearray(PATCH)
    at = data.draw(st.integers(0, len(PATCH) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    with suppress(BundleError):
        assert apply(bytes(damaged)) == NEW


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_any_windows_are_refused_by_name(tail: bytes) -> None:
    with pytest.raises(BundleError):
        apply(Head(1000, 1000, len(OLD), 10).packed() + tail, size=10)


def test_a_patch_that_reads_the_old_image_over_and_over_is_refused() -> None:
    control = write_control((Range(0, len(OLD)),), (Piece(Kind.ZERO, 1),))
    window = WINDOW.pack(len(control), 0, 0, hashlib.sha256(b"\0").digest()) + control
    with pytest.raises(LimitError, match="2 times"):
        apply(Head(len(OLD), 10, len(OLD), 100).packed() + window * 100, size=100, memory=1 << 20)
