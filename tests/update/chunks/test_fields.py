import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.chunks.fields import HashType, hash_of_length, hash_type, read_integer, write_integer
from update.errors import ChunkError, LimitError


@given(value=st.integers(0, (1 << 63) - 1), before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_an_integer_is_read_as_it_was_written(value: int, before: bytes, after: bytes) -> None:
    encoded = write_integer(value)
    data = before + encoded + after
    assert read_integer(data, len(before), len(data), "it") == (value, len(before) + len(encoded))


@pytest.mark.parametrize(("value", "encoded"), [(0, "80"), (127, "ff"), (128, "0081"), (300, "2c82"), (16384, "000081")])
def test_the_stop_bit_is_on_the_last_byte(value: int, encoded: str) -> None:
    assert write_integer(value).hex() == encoded


@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_a_number_that_no_reader_takes_is_not_written(value: int) -> None:
    with pytest.raises(LimitError):
        write_integer(value)


@pytest.mark.parametrize("data", ["", "00", "7f7f7f7f7f7f7f7f7f", "00" * 10 + "80", "7f" * 11])
def test_an_integer_without_its_end_is_refused(data: str) -> None:
    with pytest.raises(ChunkError):
        read_integer(bytes.fromhex(data), 0, len(data) // 2, "it")


def test_an_integer_of_ten_bytes_above_the_limit_is_refused() -> None:
    with pytest.raises(LimitError):
        read_integer(b"\x7f" * 9 + b"\x81", 0, 10, "it")


def test_an_integer_does_not_reach_behind_its_part() -> None:
    with pytest.raises(ChunkError):
        read_integer(b"\x00\x80", 0, 1, "it")


def test_the_fourth_hash_is_the_first_half_of_a_quarter_of_sha512() -> None:
    assert HashType.SHA512_128.digest(b"a", b"b") == hashlib.sha512(b"ab").digest()[:16]


@pytest.mark.parametrize("kind", HashType)
def test_a_hash_is_known_by_the_length_of_its_digests(kind: HashType) -> None:
    assert len(kind.digest(b"x")) == kind.size
    assert hash_of_length(bytes(kind.size)) is kind


def test_unknown_hashes_are_refused() -> None:
    with pytest.raises(ChunkError):
        hash_type(4, "it")
    with pytest.raises(ChunkError):
        hash_of_length(bytes(31))
