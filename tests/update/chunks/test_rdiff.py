"""Applying deltas: every command, and every hostile one refused by name before it does anything."""

import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import read_of
from tests.update.chunks.test_rdiff_delta import delta_of, patched
from update.chunks.rdiff import DELTA_MAGIC, apply_delta
from update.errors import BundleError, ChunkError, LimitError, StoreError

BASE = bytes(range(200))


def delta(*commands: str) -> bytes:
    return DELTA_MAGIC + b"".join(map(bytes.fromhex, commands))


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("03616263", b"abc"),
        ("4103616263", b"abc"),
        ("420003616263", b"abc"),
        ("4300000003616263", b"abc"),
        ("440000000000000003616263", b"abc"),
        ("450203", BASE[2:5]),
        ("46020003", BASE[2:5]),
        ("49000203", BASE[2:5]),
        ("54" + "0000000000000002" + "0000000000000003", BASE[2:5]),
        ("45c503", BASE[197:]),
    ],
)
def test_each_command_does_what_it_says(command: str, result: bytes) -> None:
    assert patched(BASE, delta(command, "00"), 3) == result


@pytest.mark.parametrize(
    ("commands", "error", "words"),
    [
        (["450203"], ChunkError, "cut short"),
        (["4502"], ChunkError, "cut short at byte 6, in a length"),
        (["036162"], ChunkError, "cut short"),
        (["4100", "00"], ChunkError, "no length"),
        (["450200", "00"], ChunkError, "no length"),
        (["5502", "00"], ChunkError, "0x55 at byte 4"),
        (["45c603", "00"], ChunkError, "up to byte 201 of a base of 200"),
        (["54" + "f" * 16 + "0" * 15 + "3", "00"], ChunkError, "another base"),
        (["450204", "00"], LimitError, "4 bytes, 3 were announced"),
        (["44" + "f" * 16, "00"], LimitError, "3 were announced"),
        (["450202", "00"], ChunkError, "2 bytes, 3 were announced"),
        (["450203", "0000"], ChunkError, "behind its end"),
    ],
)
def test_a_hostile_delta_is_refused_by_name(commands: list[str], error: type[BundleError], words: str) -> None:
    with pytest.raises(error, match=words):
        patched(BASE, delta(*commands), 3)


def test_what_is_no_delta_is_refused() -> None:
    with pytest.raises(ChunkError, match="72730147"):
        patched(BASE, bytes.fromhex("72730147") + b"\0", 0)


def test_a_refused_command_has_written_nothing() -> None:
    out: list[bytes] = []
    with pytest.raises(ChunkError):
        apply_delta(io.BytesIO(delta("45c603")), read_of(BASE), len(BASE), out.append, size=3)
    assert out == []


def test_a_base_that_shrinks_is_named() -> None:
    with pytest.raises(StoreError, match="ended at byte 200"):
        apply_delta(io.BytesIO(delta("45c564", "00")), read_of(BASE), 400, lambda _data: None, size=100)


def test_memory_is_one_buffer() -> None:
    base, longest = bytes(1 << 20), 0

    def take(data: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(data))

    new = base + b"literal" * 40_000
    apply_delta(io.BytesIO(delta_of(base, new)), read_of(base), len(base), take, size=len(new))
    assert longest == 1 << 16


@given(st.binary(max_size=120), st.integers(0, 300))
@settings(max_examples=100)
def test_any_bytes_are_refused_by_name_or_make_the_announced_size(tail: bytes, size: int) -> None:
    with suppress(BundleError):
        assert len(patched(BASE, DELTA_MAGIC + tail, size)) == size


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_delta_is_refused_by_name_or_keeps_the_size(data: st.DataObject) -> None:
    good = bytearray(delta_of(BASE, BASE[:90] + b"new" + BASE[50:], 16))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(BundleError):
        assert len(patched(BASE, bytes(good), 243)) == 243
