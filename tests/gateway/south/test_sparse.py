"""The sparse file's bitmap never claims what is not on disk, whatever moment the power goes."""

import random
from pathlib import Path

import pytest

from gateway.south.sparse import SparseFile
from tests.replay import CrashState, Recorder, Trace, assert_every_crash, needless_syncs
from update.chunks.zchunk import header_length
from update.digest import digest_of
from update.durable import Disk
from update.errors import ChunkError
from update.publish.images import write_zchunk
from update.trust.verified import Provenance, VerifiedChunkIndex, verify_chunk_index


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("zck")
    (folder / "image").write_bytes(random.Random(9).randbytes(60_000))
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return (folder / "image.zck").read_bytes()


@pytest.fixture(scope="module")
def index(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> VerifiedChunkIndex:
    raw = content[: header_length(content[:25])]
    return verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF)


def fill(sparse: SparseFile, content: bytes, numbers: range) -> None:
    for number in numbers:
        chunk = sparse.index[number]
        sparse.put(number, content[chunk.start : chunk.start + chunk.length])


def test_a_chunk_of_other_bytes_is_refused_and_not_claimed(tmp_path: Path, content: bytes, index: VerifiedChunkIndex) -> None:
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", index)
    with pytest.raises(ChunkError):
        sparse.put(0, bytes(index.header[0].length))
    assert not sparse.holds(0)
    sparse.close()


def test_a_bitmap_of_another_header_or_with_a_flipped_bit_counts_for_nothing(
    tmp_path: Path, content: bytes, index: VerifiedChunkIndex
) -> None:
    path = tmp_path / "x.zck"
    sparse = SparseFile.open(Disk(), path, index)
    fill(sparse, content, range(len(index.header)))
    sparse.commit()
    sparse.close()
    bitmap = tmp_path / "x.zck.map"
    good = bitmap.read_bytes()
    for damaged in (good[:-1], good[:6] + bytes(32) + good[38:], bytes([*good[:-33], good[-33] ^ 1, *good[-32:]]), b""):
        bitmap.write_bytes(damaged)
        again = SparseFile.open(Disk(), path, index)
        assert again.count() == 0
        again.close()


def test_after_any_power_cut_every_claimed_chunk_is_there_and_every_sync_is_needed(
    tmp_path: Path, content: bytes, index: VerifiedChunkIndex
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder(root)
    sparse = SparseFile.open(Disk(recorder), root / "x.zck", index)
    count = len(index.header)
    promised = [0]
    recorder.mark()
    for numbers in (range(1), range(1, count)):
        fill(sparse, content, numbers)
        sparse.commit()
        promised.append(numbers.stop)
        recorder.mark()
    sparse.close()

    def check(folder: Path, state: CrashState) -> None:
        again = SparseFile.open(Disk(), folder / "x.zck", index)
        kept = again.count()
        assert [again.holds(number) for number in range(count)] == [number < kept for number in range(count)], "a claim is false"
        assert kept >= promised[state.marks - 1 if state.marks else 0], "a promised chunk is lost"
        held = (folder / "x.zck").read_bytes()
        assert held[: index.header.header_size] == index.header.raw
        again.close()

    def verify(trace: Trace) -> None:
        assert_every_crash(trace, check, into=tmp_path / "crash", limit=60)

    stale_bitmap = 1  # the first sync makes the removal of an earlier file's bitmap durable: here there was none
    assert needless_syncs(recorder.trace(), verify, after=stale_bitmap) == []
