"""The trailer of a RAUC bundle, and sizes that lie."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.rauc import BLOCK, assemble, payload
from update.bundle.rauc_layout import MAX_SIGNATURE_BYTES, RaucLayout, is_rauc_bundle, read_layout
from update.errors import ContainerError, LimitError

FILE = Path("it.raucb")
CONTENT = payload(4)


def cut(data: bytes) -> RaucLayout:
    return read_layout(io.BytesIO(data), FILE)


@given(st.integers(1, 5), st.binary(min_size=1, max_size=300))
def test_what_was_put_together_is_cut_again(blocks: int, signature: bytes) -> None:
    found = cut(assemble(payload(blocks), signature))
    assert (found.content_bytes, found.signature, found.is_squashfs) == (blocks * BLOCK, signature, True)


def test_the_largest_signature_is_read_and_a_larger_one_is_not() -> None:
    assert len(cut(assemble(CONTENT, bytes(MAX_SIGNATURE_BYTES))).signature) == MAX_SIGNATURE_BYTES
    with pytest.raises(LimitError, match="65537"):
        cut(assemble(CONTENT, bytes(MAX_SIGNATURE_BYTES + 1)))


@pytest.mark.parametrize("size", [0, 1, 99, 101, BLOCK * 8, 2**63, 2**64 - 1])
def test_a_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises((ContainerError, LimitError), match=r"it\.raucb"):
        cut(assemble(CONTENT, b"s" * 100, size=size))


@pytest.mark.parametrize("length", [0, 1, 7, 8, BLOCK, BLOCK + 8])
def test_what_is_too_short_is_refused(length: int) -> None:
    with pytest.raises(ContainerError, match="too few"):
        cut(bytes(length))


def test_a_bundle_without_any_signature_is_refused() -> None:
    with pytest.raises(ContainerError, match="a signature of 0"):
        cut(assemble(CONTENT, b""))


def test_content_of_odd_length_is_refused() -> None:
    with pytest.raises(ContainerError, match="multiple of 4096"):
        cut(assemble(CONTENT + b"x", b"s" * 100))


@pytest.mark.parametrize(
    ("name", "taken"),
    [("a.raucb", True), ("os/v1.2.raucb", True), ("os/._v1.2.raucb", False), ("a.swu", False), ("a.raucb.sig", False)],
)
def test_bundles_are_known_by_their_name(name: str, *, taken: bool) -> None:
    assert is_rauc_bundle(name) is taken
