import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from update.chunks.fields import Compression
from update.chunks.header import HeaderBuilder
from update.chunks.zchunk import LEAD_BYTES, header_length, parse_header

sizes = st.tuples(st.integers(0, 10 << 20), st.integers(0, 10 << 20))


@settings(max_examples=100)
@given(st.lists(sizes, max_size=40))
def test_a_header_is_read_as_it_was_built(chunks: list[tuple[int, int]]) -> None:
    builder = HeaderBuilder()
    for number, (length, size) in enumerate(chunks):
        builder.add(compressed_digest=digest(2 * number), digest=digest(2 * number + 1), length=length, size=size)
    raw = builder.build()
    index = parse_header(raw)
    assert header_length(raw[:LEAD_BYTES]) == len(raw)
    assert index.raw == raw
    assert [(c.length, c.size) for c in index] == chunks
    assert [(c.compressed_digest, c.digest) for c in index] == [(digest(2 * n), digest(2 * n + 1)) for n in range(len(chunks))]
    assert index.total_length == len(raw) + sum(length for length, _ in chunks)


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def test_an_image_of_nothing_has_no_chunks() -> None:
    assert len(parse_header(HeaderBuilder().build())) == 0


def test_stored_chunks_can_be_plain() -> None:
    assert parse_header(HeaderBuilder(Compression.NONE).build()).compression is Compression.NONE
