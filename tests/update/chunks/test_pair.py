"""Pair patches in both forms: random edits round trip, and a hostile frame costs no memory."""

import io
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import edited, read_of
from tests.update.chunks.indexed import indexed
from update.chunks.pair import MIN_MEMORY_BYTES, PatchForm, apply_pair, form_of, write_pair
from update.chunks.rdiff import DELTA_MAGIC
from update.errors import BundleError, ChunkError, LimitError

FORMS = list(PatchForm)


def made(form: PatchForm, old: bytes, new: bytes) -> bytes:
    out: list[bytes] = []
    write_pair(form, indexed(old), indexed(new), out.append, memory_bytes=MIN_MEMORY_BYTES)
    return b"".join(out)


def applied(form: PatchForm, patch: bytes, old: bytes, size: int) -> bytes:
    out: list[bytes] = []
    stream = io.BytesIO(patch)
    apply_pair(form, stream, read_of(old), len(old), out.append, size=size, memory_bytes=MIN_MEMORY_BYTES)
    return b"".join(out)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), edits=st.integers(0, 12), size=st.integers(0, 120_000))
def test_the_result_is_the_image_whatever_was_edited(form: PatchForm, seed: int, edits: int, size: int) -> None:
    old = random.Random(seed).randbytes(size // 2) + bytes(size - size // 2)
    new = edited(old, seed, edits)
    assert applied(form, made(form, old, new), old, len(new)) == new


@pytest.mark.parametrize("form", FORMS)
def test_a_patch_is_a_fraction_of_what_changed_little(form: PatchForm) -> None:
    old = random.Random(1).randbytes(400_000)
    new = old[:200_000] + b"inserted" + old[200_000:]
    assert len(made(form, old, new)) < 10_000


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_patch_ends_in_a_named_error_or_in_an_image_of_the_right_size(form: PatchForm, data: st.DataObject) -> None:
    old = random.Random(7).randbytes(20_000)
    new = edited(old, 7, 4)
    patch = bytearray(made(form, old, new))
    place = data.draw(st.integers(0, len(patch) - 1))
    patch[place] ^= data.draw(st.integers(1, 255))
    try:
        result = applied(form, bytes(patch), old, len(new))
    except BundleError:
        return
    assert len(result) == len(new)


def test_a_frame_with_a_large_window_is_refused_before_it_is_allocated() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ChunkError, match="window"):
        applied(PatchForm.LIBRSYNC, packer.compress(bytes(2000)) + packer.flush(), b"", 10)


def test_a_bomb_is_refused_by_the_first_command_that_goes_too_far() -> None:
    bomb = DELTA_MAGIC + b"\x43" + (1 << 30).to_bytes(4, "big") + bytes(1 << 26)
    packed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=19, compression_level=1)
    ).compress(bomb)
    assert len(packed) < 1 << 14
    with pytest.raises(LimitError, match="100 were announced"):
        applied(PatchForm.LIBRSYNC, packed, b"", 100)


def test_each_form_has_a_name_of_its_own() -> None:
    assert [form_of(form.media_type) for form in FORMS] == FORMS
    assert form_of("application/octet-stream") is None
