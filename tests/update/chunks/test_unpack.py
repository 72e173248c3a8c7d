import hashlib
from io import BytesIO

import pytest
import zstandard

from update.chunks.fields import HashType, write_integer
from update.chunks.header import HeaderBuilder
from update.chunks.unpack import read_header, unpack
from update.errors import ChunkError

ci = write_integer
PIECES = [b"first " * 3000, bytes(9000), b"third"]


def whole_file() -> bytes:
    builder, body = HeaderBuilder(), b""
    for data in PIECES:
        stored = zstandard.ZstdCompressor().compress(data)
        builder.add(
            compressed_digest=hashlib.sha256(stored).digest(),
            digest=hashlib.sha256(data).digest(),
            length=len(stored),
            size=len(data),
        )
        body += stored
    return builder.build() + body


def old_style_file(*, data_digest: bytes | None = None) -> bytes:
    """A file as `zck -D` makes it: a dictionary, one short digest per chunk, and a digest of the body."""
    content = b"gateway of a factory " * 50
    compressor = zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(content))
    stored = [zstandard.ZstdCompressor().compress(content), *(compressor.compress(data) for data in PIECES)]
    sizes = [len(content), *map(len, PIECES)]
    entries = b"".join(
        HashType.SHA512_128.digest(part) + ci(len(part)) + ci(size) for part, size in zip(stored, sizes, strict=True)
    )
    body = b"".join(stored)
    index = ci(3) + ci(len(stored)) + entries
    rest = (data_digest or hashlib.sha256(body).digest()) + ci(0) + ci(2) + ci(len(index)) + index + ci(0)
    lead = b"\0ZCK1" + ci(1) + ci(len(rest))
    return lead + hashlib.sha256(lead + rest).digest() + rest + body


@pytest.mark.parametrize("file", [whole_file(), old_style_file()], ids=["with-digests", "with-dictionary"])
def test_a_file_gives_its_image(file: bytes) -> None:
    assert [data for _, data in unpack(BytesIO(file))] == PIECES


@pytest.mark.parametrize("file", [whole_file(), old_style_file()], ids=["with-digests", "with-dictionary"])
def test_a_file_cut_anywhere_or_longer_than_its_header_says_is_refused(file: bytes) -> None:
    for cut in {*range(0, len(file), 37), len(file) - 1}:
        with pytest.raises(ChunkError):
            list(unpack(BytesIO(file[:cut])))
    with pytest.raises(ChunkError):
        list(unpack(BytesIO(file + b"x")))


@pytest.mark.parametrize("file", [whole_file(), old_style_file()], ids=["with-digests", "with-dictionary"])
def test_one_changed_byte_anywhere_is_found_before_its_chunk_is_given_out(file: bytes) -> None:
    for at in range(0, len(file), 41):
        changed = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        given: list[bytes] = []
        with pytest.raises(ChunkError):
            given.extend(data for _, data in unpack(BytesIO(changed)))
        assert given == PIECES[: len(given)]


def test_the_digest_of_the_body_is_checked_where_there_is_one() -> None:
    with pytest.raises(ChunkError):
        list(unpack(BytesIO(old_style_file(data_digest=bytes(32)))))


def test_the_body_begins_where_the_header_ends() -> None:
    file = BytesIO(whole_file())
    index = read_header(file)
    assert file.tell() == index.header_size
    assert index.raw == whole_file()[: index.header_size]
