import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.handlers.assembler import Assembler
from update.chunks.plan import merge
from update.chunks.ranges import Range
from update.chunks.zchunk import Chunk
from update.errors import ProtocolError

_FILE = random.Random(5).randbytes(4000)


def _chunk(number: int, start: int, length: int) -> Chunk:
    digest = hashlib.sha256(_FILE[start : start + length]).digest()
    return Chunk(number, digest, digest, start, length, 0, length)


def _chunks(lengths: list[int], first: int = 100) -> list[Chunk]:
    chunks = []
    for number, length in enumerate(lengths):
        chunks.append(_chunk(number, first, length))
        first += length
    return chunks


def _feed(assembler: Assembler, pieces: list[tuple[int, bytes]]) -> list[tuple[Chunk, bytes]]:
    return [done for offset, data in pieces for done in assembler.feed(offset, data)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=10), st.data())
def test_chunks_come_out_whole_however_the_ranges_were_cut(lengths: list[int], data: st.DataObject) -> None:
    chunks = _chunks(lengths)
    wanted = sorted(data.draw(st.sets(st.sampled_from(chunks), min_size=1)), key=lambda chunk: chunk.start)
    size = data.draw(st.integers(1, 500))
    pieces = [
        (offset, _FILE[offset : min(offset + size, part.end)])
        for part in merge(Range(chunk.start, chunk.length) for chunk in wanted)
        for offset in range(part.start, part.end, size)
    ]
    assembler = Assembler(wanted)
    done = _feed(assembler, pieces)
    assembler.finish()
    assert [chunk for chunk, _ in done] == wanted
    assert all(stored == _FILE[chunk.start : chunk.start + chunk.length] for chunk, stored in done)


def test_a_server_that_answers_with_one_covering_range_is_understood() -> None:
    chunks = _chunks([100, 200, 300])
    done = _feed(Assembler([chunks[0], chunks[2]]), [(0, _FILE)])
    assert [chunk.index for chunk, _ in done] == [0, 2]


def test_a_gap_in_a_chunk_is_the_peers_fault() -> None:
    assembler = Assembler(_chunks([100]))
    _feed(assembler, [(100, _FILE[100:150])])
    with pytest.raises(ProtocolError, match="skipped"):
        _feed(assembler, [(160, _FILE[160:200])])


def test_an_end_before_the_last_chunk_is_the_peers_fault() -> None:
    assembler = Assembler(_chunks([100, 50]))
    _feed(assembler, [(100, _FILE[100:220])])
    with pytest.raises(ProtocolError, match="1 of 2"):
        assembler.finish()


@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=300)), max_size=8))
def test_whatever_arrives_only_the_named_error_is_raised(pieces: list[tuple[int, bytes]]) -> None:
    assembler = Assembler(_chunks([1, 300, 40]))
    try:
        for chunk, stored in _feed(assembler, pieces):
            assert len(stored) == chunk.length
        assembler.finish()
    except ProtocolError:
        return
