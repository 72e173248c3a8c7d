"""The hash tree, built with one block per level in memory, against the plain way of building it."""

import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.rauc import BLOCK, SALT, payload, tree_of
from update.bundle.rauc_manifest import VerityPin
from update.bundle.rauc_verity import tree_bytes, verify_tree
from update.digest import Digest
from update.errors import ContainerError, HashMismatchError

BORDERS = [2, 3, 127, 128, 129, 130, 255, 256, 257, 16384, 16385, 16512]


def pinned(data: bytes, *, salt: bytes = SALT) -> tuple[VerityPin, bytes]:
    root, tree = tree_of(data, salt)
    return VerityPin(Digest(root), salt, len(tree)), data + tree


@pytest.mark.parametrize("blocks", BORDERS)
def test_a_good_tree_is_good_at_every_border_of_its_levels(blocks: int) -> None:
    data = payload(blocks)
    pin, content = pinned(data)
    assert verify_tree(io.BytesIO(content), len(content), pin) == len(data)
    assert tree_bytes(len(data)) == pin.tree_bytes


@settings(max_examples=60)
@given(st.integers(2, 600), st.binary(min_size=32, max_size=32), st.data())
def test_one_changed_byte_anywhere_is_found_and_placed(blocks: int, salt: bytes, data: st.DataObject) -> None:
    whole = payload(blocks)
    pin, content = pinned(whole, salt=salt)
    assert verify_tree(io.BytesIO(content), len(content), pin) == len(whole)
    changed = bytearray(content)
    at = data.draw(st.integers(0, len(content) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(HashMismatchError) as refusal:
        verify_tree(io.BytesIO(changed), len(content), pin)
    if at < len(whole):
        begin = at // (128 * BLOCK) * 128 * BLOCK
        assert f"first differ for bytes {begin} to" in str(refusal.value)
        assert "the payload has the dm-verity root" in str(refusal.value)
    else:
        assert "the payload is as signed" in str(refusal.value)


def test_another_salt_or_root_is_refused() -> None:
    pin, content = pinned(payload(5))
    for wrong in (VerityPin(pin.root, bytes(32), pin.tree_bytes), VerityPin(Digest("0" * 64), pin.salt, pin.tree_bytes)):
        with pytest.raises(HashMismatchError, match="dm-verity root"):
            verify_tree(io.BytesIO(content), len(content), wrong)


@pytest.mark.parametrize("tree", [BLOCK, 2 * BLOCK, 4 * BLOCK, 200 * BLOCK, 201 * BLOCK, 10**15 * BLOCK])
def test_a_tree_of_another_size_than_the_payload_has_is_refused(tree: int) -> None:
    pin, content = pinned(payload(199))
    with pytest.raises(ContainerError):
        verify_tree(io.BytesIO(content), len(content), VerityPin(pin.root, pin.salt, tree))


def test_one_block_has_no_tree() -> None:
    with pytest.raises(ContainerError, match="no payload"):
        verify_tree(io.BytesIO(bytes(2 * BLOCK)), 2 * BLOCK, VerityPin(Digest("0" * 64), SALT, BLOCK))


def test_a_file_that_becomes_shorter_is_refused() -> None:
    pin, content = pinned(payload(300))
    with pytest.raises((ContainerError, HashMismatchError)):
        verify_tree(io.BytesIO(content[: 150 * BLOCK]), len(content), pin)


def test_memory_does_not_grow_with_the_payload(tmp_path: Path) -> None:
    """64 MiB of payload have 16,384 digests, half a mebibyte of them: one more level than a block can hold."""
    blocks = 16384
    (tmp_path / "payload").write_bytes(bytes(blocks * BLOCK))
    root, tree = tree_of(bytes(blocks * BLOCK))
    with (tmp_path / "payload").open("ab") as file:
        file.write(tree)
    with (tmp_path / "payload").open("rb") as file:
        tracemalloc.start()
        try:
            verify_tree(file, blocks * BLOCK + len(tree), VerityPin(Digest(root), SALT, len(tree)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20
