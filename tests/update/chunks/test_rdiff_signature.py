"""Signatures: what is written is read again, and hostile ones are refused by name."""

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import read_of
from update.chunks.rabin_karp import MakeSums, PureSums, weak_sum
from update.chunks.rabin_karp_numpy import NumpySums
from update.chunks.rdiff_signature import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_MAGIC,
    default_block_bytes,
    read_signature,
    strong_sum,
    write_signature,
)
from update.errors import BundleError, ChunkError, CorruptError, LimitError, UnsupportedError


def signature_of(data: bytes, block: int = 0, strong: int = 32, make: MakeSums | None = None) -> bytes:
    out: list[bytes] = []
    write_signature(read_of(data), len(data), out.append, block_bytes=block, strong_bytes=strong, make_sums=make)
    return b"".join(out)


def head(magic: int = SIGNATURE_MAGIC, block: int = 256, strong: int = 32) -> bytes:
    return struct.pack(">III", magic, block, strong)


@pytest.mark.parametrize("make", [PureSums, NumpySums])
@given(st.binary(max_size=3000), st.integers(1, 700), st.integers(1, 32))
@settings(max_examples=50)
def test_what_is_written_is_read_again(make: MakeSums, data: bytes, block: int, strong: int) -> None:
    signature = read_signature(io.BytesIO(signature_of(data, block, strong, make)))
    blocks = [data[at : at + block] for at in range(0, len(data), block)]
    assert (signature.block_bytes, signature.strong_bytes, len(signature)) == (block, strong, len(blocks))
    assert list(signature.weak_sums()) == [weak_sum(part) for part in blocks]
    entries = [signature.entry(number) for number in range(len(signature))]
    assert entries == [weak_sum(part).to_bytes(4, "big") + strong_sum(part, strong) for part in blocks]


@pytest.mark.parametrize(
    ("size", "block"), [(0, 256), (65536, 256), (100_000, 256), (1_000_000, 896), (16_777_216, 4096), (356_515_840, 18_816)]
)
def test_blocks_grow_with_the_base(size: int, block: int) -> None:
    assert default_block_bytes(size) == block


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ChunkError),
        (head()[:-1], ChunkError),
        (head(magic=0x72730236), ChunkError),
        (head(magic=0x72730136), UnsupportedError),
        (head() + bytes(35), ChunkError),
        (head(block=0), LimitError),
        (head(block=(1 << 20) + 1), LimitError),
        (head(strong=0), LimitError),
        (head(strong=33), LimitError),
    ],
)
def test_a_signature_that_is_none_is_refused_by_name(data: bytes, error: type[BundleError]) -> None:
    with pytest.raises(error):
        read_signature(io.BytesIO(data))


def test_an_endless_signature_is_not_read_to_its_end() -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return head()[:size] if self.given <= 12 else bytes(size)

    endless = Endless()
    with pytest.raises(LimitError):
        read_signature(endless)
    assert endless.given <= MAX_SIGNATURE_BYTES + 13


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_by_name_or_read(data: bytes) -> None:
    with suppress(BundleError):
        read_signature(io.BytesIO(data))


def test_a_base_that_ends_early_is_named() -> None:
    with pytest.raises(CorruptError, match="100 of 101"):
        write_signature(read_of(bytes(100)), 101, lambda _data: None)
