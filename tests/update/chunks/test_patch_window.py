"""Control blocks: what is written is read again, and hostile ones are refused by name."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.chunks.patch_window import MAX_CONTROL_BYTES, Control, Kind, Piece, read_control, write_control
from update.chunks.ranges import Range
from update.errors import BundleError, ChunkError, LimitError

OLD = 1 << 40
COPIES = st.builds(Piece, st.just(Kind.COPY), st.integers(1, 1 << 39), st.integers(0, 1 << 39))
OTHERS = st.builds(Piece, st.sampled_from([Kind.LITERAL, Kind.ZERO]), st.integers(1, 1 << 50))
REGIONS = st.builds(Range, st.integers(0, 1 << 39), st.integers(1, 1 << 39))


@given(st.lists(REGIONS, max_size=5), st.lists(COPIES | OTHERS, min_size=1, max_size=8))
def test_what_is_written_is_read_again(regions: list[Range], pieces: list[Piece]) -> None:
    control = read_control(write_control(regions, pieces), old_size=OLD)
    assert control == Control(tuple(regions), tuple(pieces))
    assert control.size == sum(piece.length for piece in pieces)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", ChunkError, "does not end"),
        (b"\0", ChunkError, "without a piece"),
        (b"\0\x80", ChunkError, "does not end"),
        (b"\0" + b"\xff" * 9 + b"\x01", ChunkError, "does not end"),
        (b"\0\x07", ChunkError, "kind 3"),
        (b"\0\x00", ChunkError, "empty piece"),
        (b"\0\x05\x64", ChunkError, "1 bytes at 100 of an old image of 100"),
        (b"\0\x01\x05", ChunkError, "empty region or copy at 5"),
        (b"\1\x05\x60\x04", ChunkError, "96 bytes at 5"),
        (b"\1\x05\x00\x04", ChunkError, "empty region"),
        (b"\xff\x7f", LimitError, "16383 regions"),
        (bytes(MAX_CONTROL_BYTES + 1), LimitError, "control block"),
    ],
)
def test_a_hostile_control_block_is_refused_by_name(data: bytes, error: type[BundleError], words: str) -> None:
    with pytest.raises(error, match=words):
        read_control(data, old_size=100)


@given(st.binary(max_size=60))
@settings(max_examples=100)
def test_any_bytes_are_refused_by_name_or_stay_within_the_old_image(data: bytes) -> None:
    with suppress(BundleError):
        control = read_control(data, old_size=100)
        assert all(region.end <= 100 for region in control.regions)
        assert all(piece.offset + piece.length <= 100 for piece in control.pieces if piece.kind is Kind.COPY)
