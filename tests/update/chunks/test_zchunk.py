import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from update.chunks.fields import Compression, HashType, write_integer
from update.chunks.header import HeaderBuilder
from update.chunks.zchunk import (
    LEAD_BYTES,
    MAX_CHUNK_BYTES,
    MAX_HEADER_BYTES,
    Chunk,
    ChunkDecoder,
    HeaderIndex,
    header_length,
    parse_header,
)
from update.errors import ChunkError, LimitError

ci = write_integer


def header(
    rest: bytes | None = None,
    *,
    magic: bytes = b"\0ZCK1",
    full: HashType = HashType.SHA256,
    flags: int = 4,
    compression: int = 2,
    optional: bytes = b"",
    chunk_hash: int = 1,
    count: int | None = None,
    entries: bytes = b"",
    signatures: bytes = ci(0),
    index: bytes | None = None,
    index_size: int | None = None,
) -> bytes:
    """A header with a right digest and whatever is wrong inside."""
    if index is None:
        shown = 1 + len(entries) // 66 if count is None else count
        index = ci(chunk_hash) + ci(shown) + bytes(64) + ci(0) + ci(0) + entries
    if rest is None:
        size = len(index) if index_size is None else index_size
        rest = bytes(full.size) + ci(flags) + ci(compression) + optional + ci(size) + index + signatures
    sizes = ci(full) + ci(len(rest))
    return magic + sizes + full.digest(b"\0ZCK1", sizes, rest) + rest


def entry(length: int, size: int) -> bytes:
    return bytes(64) + ci(length) + ci(size)


def chunk_of(data: bytes, stored: bytes) -> Chunk:
    return Chunk(0, hashlib.sha256(data).digest(), hashlib.sha256(stored).digest(), 100, len(stored), 0, len(data))


def test_the_places_of_chunks_are_sums_of_the_lengths_before_them() -> None:
    index = parse_header(header(entries=entry(10, 20) + entry(0, 0) + entry(3, 5)))
    size = index.header_size
    assert [(c.index, c.start, c.length, c.offset, c.size) for c in index] == [
        (0, size, 10, 0, 20),
        (1, size + 10, 0, 20, 0),
        (2, size + 10, 3, 20, 5),
    ]
    assert (index.total_length, index.image_size, len(index), index.dictionary) == (size + 13, 25, 3, None)


def test_a_dictionary_moves_the_chunks_and_is_none_of_them() -> None:
    raw = header(index=ci(1) + ci(2) + b"d" * 32 + b"D" * 32 + ci(7) + ci(9) + entry(3, 4))
    index = parse_header(raw)
    assert index.dictionary == Chunk(-1, b"D" * 32, b"d" * 32, len(raw), 7, 0, 9)
    assert [(c.start, c.offset) for c in index] == [(len(raw) + 7, 0)]
    assert index.total_length == len(raw) + 10


def test_a_file_without_uncompressed_digests_has_none() -> None:
    raw = header(flags=0, index=ci(3) + ci(2) + bytes(16) + ci(0) + ci(0) + b"c" * 16 + ci(3) + ci(4))
    chunk = parse_header(raw)[0]
    assert (chunk.digest, chunk.compressed_digest) == (b"", b"c" * 16)
    assert parse_header(raw).chunk_hash is HashType.SHA512_128


def test_optional_elements_are_passed_over() -> None:
    optional = ci(2) + ci(5) + ci(3) + b"abc" + ci(6) + ci(0)
    assert len(parse_header(header(flags=6, optional=optional, entries=entry(1, 1)))) == 1


def test_a_detached_header_is_the_same_index() -> None:
    attached, detached = header(entries=entry(1, 1)), header(entries=entry(1, 1), magic=b"\0ZHR1")
    assert list(parse_header(attached)) == list(parse_header(detached))
    assert parse_header(attached).digest == parse_header(detached).digest


@pytest.mark.parametrize("full", HashType)
def test_every_full_hash_of_libzck_is_read(full: HashType) -> None:
    raw = header(full=full, entries=entry(1, 1))
    index = parse_header(raw)
    assert header_length(raw[:LEAD_BYTES]) == len(raw) == index.header_size
    assert (index.full_hash, index.data_digest) == (full, bytes(full.size))


BAD = {
    "empty": b"",
    "another magic": header(magic=b"\0ZCK2"),
    "cut short": header()[:-1],
    "bytes behind": header() + b"x",
    "its digest": header()[:-40] + b"x" + header()[-39:],
    "streams": header(flags=5),
    "an unknown flag": header(flags=12),
    "unknown compression": header(compression=1),
    "unknown chunk hash": header(chunk_hash=4),
    "unknown full hash": b"\0ZCK1" + ci(9) + ci(3) + bytes(40),
    "no chunk count": header(index=ci(1)),
    "no dictionary entry": header(index=ci(1) + ci(0)),
    "more chunks than bytes": header(count=3, entries=entry(1, 1)),
    "countless chunks": header(count=1 << 62),
    "fewer chunks than bytes": header(count=1, entries=entry(1, 1)),
    "an index behind the end": header(index_size=1 << 40),
    "an index too short for the header": header(index_size=69, index=ci(1) + ci(1) + bytes(66) + ci(0)),
    "a signature": header(signatures=ci(1) + bytes(10)),
    "no count of signatures": header(signatures=b""),
    "bytes behind the signatures": header(signatures=ci(0) + b"x"),
    "endless optional elements": header(flags=6, optional=ci(1 << 40)),
    "an optional element behind the end": header(flags=6, optional=ci(1) + ci(1) + ci(1 << 40)),
    "uncompressed of another size": header(compression=0, entries=entry(3, 4)),
    "nothing in it": header(rest=b""),
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_a_malformed_header_is_refused(raw: bytes) -> None:
    with pytest.raises(ChunkError):
        parse_header(raw)


TOO_MUCH = {
    "a huge header": b"\0ZCK1" + ci(1) + ci(MAX_HEADER_BYTES + 1) + bytes(40),
    "a huge chunk": header(entries=entry(1, MAX_CHUNK_BYTES + 1)),
    "a huge stored chunk": header(entries=entry(2 * MAX_CHUNK_BYTES, 1)),
    "a length above 63 bits": header(index=ci(1) + ci(2) + bytes(64) + ci(0) + ci(0) + bytes(64) + b"\x7f" * 9 + b"\x81" + ci(0)),
}


@pytest.mark.parametrize("raw", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_a_header_above_a_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(LimitError):
        parse_header(raw)


def test_a_huge_header_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(LimitError):
        header_length((b"\0ZCK1" + ci(1) + ci(1 << 40) + bytes(40))[:LEAD_BYTES])


def test_the_length_needs_the_whole_lead() -> None:
    with pytest.raises(ChunkError):
        header_length(header()[:6])


@settings(max_examples=100)
@given(cut=st.integers(0, 400), patch=st.binary(max_size=12), drop=st.integers(0, 12))
def test_a_header_signed_by_an_enemy_is_read_or_refused_by_name(cut: int, patch: bytes, drop: int) -> None:
    rest = header(flags=6, optional=ci(1) + ci(1) + ci(2) + b"ab", entries=entry(9, 9) + entry(200, 40000))[40:]
    try:
        index = parse_header(header(rest=rest[:cut] + patch + rest[cut + drop :]))
    except (ChunkError, LimitError):
        return
    assert sum(chunk.size for chunk in index) == index.image_size
    assert all(before.start + before.length == after.start for before, after in zip(index, list(index)[1:], strict=False))


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for data in (noise, b"\0ZCK1" + noise, b"\0ZCK1\x81" + noise):
        with pytest.raises((ChunkError, LimitError)):
            parse_header(data)


def big_index(chunks: int) -> HeaderIndex:
    builder = HeaderBuilder()
    for number in range(chunks):
        digest = hashlib.sha256(number.to_bytes(4, "big")).digest()
        builder.add(compressed_digest=digest, digest=digest, length=20000, size=32768)
    return parse_header(builder.build())


def test_the_index_of_a_large_image_stays_small() -> None:
    tracemalloc.start()
    try:
        index = big_index(32768)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.image_size == 1 << 30
    assert held < 5 << 20


def test_chunks_are_numbered_from_zero_and_end() -> None:
    index = big_index(3)
    for outside in (-1, 3):
        with pytest.raises(IndexError):
            index[outside]


@pytest.mark.parametrize(
    ("start", "length", "numbers"),
    [(-5, 5, []), (-5, 6, [0]), (0, 10, [0]), (9, 2, [0, 1, 2]), (10, 1, [2]), (12, 99, [2]), (13, 5, []), (3, 0, [])],
)
def test_a_range_of_the_file_is_covered_by_the_chunks_it_touches(start: int, length: int, numbers: list[int]) -> None:
    index = parse_header(header(entries=entry(10, 20) + entry(0, 0) + entry(3, 5)))
    assert list(index.covering(index.header_size + start, length)) == numbers


def test_a_chunk_is_decoded_when_both_digests_match() -> None:
    data = b"gateway " * 1000
    stored = zstandard.ZstdCompressor().compress(data)
    assert ChunkDecoder().decode(stored, chunk_of(data, stored)) == data
    assert ChunkDecoder().decode(data, replace(chunk_of(data, data), compression=Compression.NONE)) == data
    assert ChunkDecoder().decode(stored, replace(chunk_of(data, stored), digest=b"")) == data


def test_a_chunk_without_content_is_empty() -> None:
    assert ChunkDecoder().decode(b"", chunk_of(b"", b"")) == b""


def test_a_frame_that_does_not_say_its_size_is_decoded_within_the_size_of_the_index() -> None:
    data = b"x" * 5000
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    assert ChunkDecoder().decode(stored, chunk_of(data, stored)) == data
    with pytest.raises(ChunkError):
        ChunkDecoder().decode(stored, replace(chunk_of(data, stored), size=4999, digest=b""))


def bad_chunks() -> dict[str, tuple[bytes, Chunk]]:
    data = b"gateway " * 1000
    stored = zstandard.ZstdCompressor().compress(data)
    bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
    two = stored + stored
    dictionary = zstandard.ZstdCompressionDict(b"gateway " * 100)
    strange = zstandard.ZstdCompressor(dict_data=dictionary).compress(data)
    return {
        "damaged": (stored[:-1] + b"x", chunk_of(data, stored)),
        "cut short": (stored[:-1], chunk_of(data, stored)),
        "other content": (stored, chunk_of(b"Gateway " * 1000, stored)),
        "larger than the index says": (stored, chunk_of(data[:-1], stored)),
        "smaller than the index says": (stored, chunk_of(data + b"x", stored)),
        "a bomb": (bomb, chunk_of(data, bomb)),
        "no frame": (data, chunk_of(data, data)),
        "nothing": (b"", chunk_of(data, b"")),
        "two frames": (two, chunk_of(data, two)),
        "bytes behind": (stored + b"x", chunk_of(data, stored + b"x")),
        "a dictionary": (strange, chunk_of(data, strange)),
        "content where none belongs": (stored, chunk_of(b"", stored)),
    }


@pytest.mark.parametrize("name", bad_chunks())
def test_a_chunk_that_differs_is_refused(name: str) -> None:
    stored, chunk = bad_chunks()[name]
    with pytest.raises(ChunkError):
        ChunkDecoder().decode(stored, chunk)


def test_a_bomb_is_refused_before_its_memory_is_taken() -> None:
    stored, chunk = bad_chunks()["a bomb"]
    peak = peak_of(lambda: ChunkDecoder().decode(stored, chunk))
    assert peak < 4 << 20


def peak_of(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ChunkError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_decoder_with_the_dictionary_decodes() -> None:
    content = b"gateway " * 100
    data = b"the gateway of a factory " * 30
    stored = zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(content)).compress(data)
    assert ChunkDecoder(content).decode(stored, chunk_of(data, stored)) == data
