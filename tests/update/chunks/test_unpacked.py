"""Positioned reads of a stored image: what they give is the image, and nothing is believed unseen."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.update.chunks.edits import read_of
from tests.update.chunks.test_unpack import old_style_file
from update.chunks import unpacked
from update.chunks.unpacked import UnpackedImage
from update.chunks.zchunk import header_length, parse_header
from update.durable import Disk
from update.errors import ChunkError, UnsupportedError
from update.publish.images import write_zchunk

CONTENT = random.Random(3).randbytes(300_000) + bytes(400_000) + b"the end" * 5000


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder: Path = tmp_path_factory.mktemp("zck")
    (folder / "image").write_bytes(CONTENT)
    write_zchunk(folder / "image", folder / "image.zck", Disk(), workers=1)
    return (folder / "image.zck").read_bytes()


def image_of(stored: bytes) -> UnpackedImage:
    return UnpackedImage(parse_header(stored[: header_length(stored)]), read_of(stored))


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 200_000)), min_size=1, max_size=6))
def test_any_reads_in_any_order_give_the_image(stored: bytes, places: list[tuple[int, int]]) -> None:
    image = image_of(stored)
    for offset, size in places:
        assert image.read(offset, size) == CONTENT[offset : offset + size]


def test_each_chunk_is_unpacked_once_from_front_to_back_and_few_are_kept(stored: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "KEPT_BYTES", 1)
    read: list[int] = []
    image = image_of(stored)

    def counted(offset: int, size: int) -> bytes:
        read.append(offset)
        return stored[offset : offset + size]

    image = UnpackedImage(image.index, counted)
    assert b"".join(image.read(at, 1000) for at in range(0, len(CONTENT), 1000)) == CONTENT
    assert read == [chunk.start for chunk in image.index]
    image.read(0, 1)
    assert len(read) == len(image.index) + 1


def test_a_damaged_chunk_is_found_when_it_is_read(stored: bytes) -> None:
    last = image_of(stored).index[0]
    damaged = bytearray(stored)
    damaged[last.start + 5] ^= 1
    image = image_of(bytes(damaged))
    with pytest.raises(ChunkError):
        image.read(0, 10)
    assert image.read(len(CONTENT) - 3, 9) == CONTENT[-3:]


def test_a_file_with_a_dictionary_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        image_of(old_style_file())
