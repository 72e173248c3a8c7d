"""Unpacking: what was packed comes out, bombs and broken streams are refused within bounded memory."""

import gzip
import io
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from update.bundle.entries import Compression
from update.bundle.payload import unpack
from update.errors import CompressionError

DATA = bytes(range(256)) * 3000 + bytes(200_000)


def zstd(data: bytes, level: int = 3, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=level, **options).compress(data)  # type: ignore[arg-type]  # boolean options only


def packed(data: bytes, compression: Compression) -> bytes:
    match compression:
        case Compression.NONE:
            return data
        case Compression.ZLIB:
            return gzip.compress(data, mtime=0)
        case Compression.ZSTD:
            return zstd(data)


def unpacked(stored: bytes, compression: Compression, max_bytes: int = len(DATA), step: int = 1 << 16) -> bytes:
    payload = unpack(io.BytesIO(stored), compression, max_bytes=max_bytes, name="image")
    return b"".join(iter(lambda: payload.read(step), b""))


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.integers(1, 400), st.sampled_from(Compression), st.integers(1, 5000))
def test_what_was_packed_comes_out(piece: bytes, repeat: int, compression: Compression, step: int) -> None:
    data = piece * repeat
    assert unpacked(packed(data, compression), compression, len(data), step) == data


@pytest.mark.parametrize("options", [{"write_checksum": True}, {"write_content_size": False}, {}])
def test_every_shape_of_zstd_frame_is_read(options: dict[str, bool]) -> None:
    stored = zstd(DATA, **options)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    assert unpacked(stored, Compression.ZSTD) == DATA
    assert unpacked(skippable + stored + skippable + stored, Compression.ZSTD, 2 * len(DATA)) == DATA * 2


@pytest.mark.parametrize("level", [1, 9, 19])
def test_every_level_of_zstd_is_read(level: int) -> None:
    assert unpacked(zstd(DATA, level), Compression.ZSTD) == DATA


@pytest.mark.parametrize("compression", Compression)
def test_one_byte_more_than_there_is_room_for_is_refused(compression: Compression) -> None:
    stored = packed(DATA, compression)
    assert unpacked(stored, compression, len(DATA)) == DATA
    with pytest.raises(CompressionError):
        unpacked(stored, compression, len(DATA) - 1)


@pytest.mark.parametrize("compression", [Compression.ZLIB, Compression.ZSTD])
def test_a_bomb_is_refused_in_bounded_memory(compression: Compression) -> None:
    bomb = packed(bytes(200 << 20), compression)
    tracemalloc.start()
    try:
        with pytest.raises(CompressionError):
            unpacked(bomb, compression, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [Compression.ZLIB, Compression.ZSTD])
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 10, 50, -1, -9])
def test_a_cut_stream_is_refused(compression: Compression, cut: int) -> None:
    with pytest.raises(CompressionError):
        unpacked(packed(DATA, compression)[:cut], compression)


@pytest.mark.parametrize("cut", range(-60, 0, 7))
def test_a_frame_without_checksum_or_size_cannot_end_early(cut: int) -> None:
    stored = zstd(DATA, write_content_size=False)
    with pytest.raises(CompressionError):
        unpacked(stored[:cut], Compression.ZSTD)


@pytest.mark.parametrize("compression", [Compression.ZLIB, Compression.ZSTD])
def test_something_behind_the_stream_is_refused(compression: Compression) -> None:
    with pytest.raises(CompressionError):
        unpacked(packed(DATA, compression) + b"x", compression)


def test_what_swupdate_cannot_unpack_is_refused() -> None:
    with pytest.raises(CompressionError):
        unpacked(zlib.compress(DATA), Compression.ZLIB)  # a zlib stream, not gzip
    with pytest.raises(CompressionError):
        unpacked(gzip.compress(DATA) * 2, Compression.ZLIB, 2 * len(DATA))


def test_a_window_that_takes_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = compressor.compress(DATA) + compressor.flush()
    with pytest.raises(CompressionError):
        unpacked(stored, Compression.ZSTD)


@settings(max_examples=100)
@given(st.sampled_from([Compression.ZLIB, Compression.ZSTD]), st.data())
def test_damaged_data_are_unpacked_or_refused_by_name(compression: Compression, data: st.DataObject) -> None:
    damaged = bytearray(packed(DATA[:5000], compression))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(unpacked(bytes(damaged), compression, 10_000)) <= 10_000
    except CompressionError:
        return
