"""The sparse file's bitmap never claims what is not on disk, whatever moment the power goes."""

import random
from pathlib import Path

import pytest

from gateway.south.sparse import SparseFile
from tests.builders.relayed import index_of
from tests.replay import CrashState, Recorder, Trace, assert_every_crash, needless_syncs
from update.chunks.fields import Compression, HashType
from update.chunks.header import HeaderBuilder
from update.digest import digest_of
from update.durable import Disk, DurableFile
from update.errors import StoreError
from update.publish.images import write_zchunk
from update.trust.verified import Provenance, VerifiedChunkIndex, verify_chunk_index


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zck")
    (folder / "image").write_bytes(random.Random(9).randbytes(60_000))
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return folder / "image.zck"


@pytest.fixture(scope="module")
def content(zck: Path) -> bytes:
    return zck.read_bytes()


@pytest.fixture(scope="module")
def index(zck: Path) -> VerifiedChunkIndex:
    return index_of(zck)


def fill(sparse: SparseFile, content: bytes, numbers: range) -> None:
    chunks = [(number, content[sparse.index[number].start :][: sparse.index[number].length]) for number in numbers]
    sparse.accept(sparse.write(chunks))


def claimed_by(sparse: SparseFile) -> set[int]:
    """What the bitmap on disk said."""
    return {number for number in range(len(sparse.index)) if sparse._held[number >> 3] >> (number & 7) & 1}


def prove(sparse: SparseFile) -> list[int]:
    """The chunks that an earlier process wrote and that are good."""
    unproved = sparse.unproved(range(len(sparse.index)))
    good = sparse.read_back(unproved)
    sparse.believe(unproved, good)
    assert [number for number in range(len(sparse.index)) if sparse.holds(number)] == good
    return good


def test_a_chunk_of_other_bytes_is_refused_and_not_claimed(tmp_path: Path, content: bytes, index: VerifiedChunkIndex) -> None:
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", index)
    good = content[index.header[1].start :][: index.header[1].length]
    assert sparse.write([(0, bytes(index.header[0].length)), (1, good), (1, good[:-1]), (0, b"")]) == [1]
    assert sparse.count() == 0, "what was written counts once it is accepted"
    sparse.accept([1])
    assert (sparse.holds(0), sparse.holds(1), sparse.count()) == (False, True, 1)
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


def test_a_damaged_header_is_mended_and_the_chunks_stay(tmp_path: Path, content: bytes, index: VerifiedChunkIndex) -> None:
    path = tmp_path / "x.zck"
    sparse = SparseFile.open(Disk(), path, index)
    fill(sparse, content, range(len(index.header)))
    sparse.commit()
    sparse.close()
    with path.open("r+b") as file:
        file.write(bytes(40))
    again = SparseFile.open(Disk(), path, index)
    assert len(prove(again)) == len(index.header)
    assert path.read_bytes() == content
    again.close()


def test_a_chunk_that_cannot_be_read_counts_as_missing(
    tmp_path: Path, content: bytes, index: VerifiedChunkIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", index)
    fill(sparse, content, range(len(index.header)))
    sparse.commit()
    sparse.close()
    again = SparseFile.open(Disk(), tmp_path / "x.zck", index)
    read_at = DurableFile.read_at

    def bad_sector(file: DurableFile, offset: int, size: int) -> bytes:
        if offset == index.header[1].start:
            raise StoreError("cannot read: Input/output error")
        return read_at(file, offset, size)

    monkeypatch.setattr(DurableFile, "read_at", bad_sector)
    assert 1 not in prove(again)
    assert again.count() == len(index.header) - 1
    again.close()


@pytest.mark.parametrize("committed", [0, 1])
def test_what_a_killed_process_wrote_and_did_not_claim_is_proved_and_not_fetched_again(
    tmp_path: Path, content: bytes, index: VerifiedChunkIndex, committed: int
) -> None:
    path, last = tmp_path / "x.zck", len(index.header) - 1
    sparse = SparseFile.open(Disk(), path, index)
    fill(sparse, content, range(committed))
    sparse.commit()
    fill(sparse, content, range(committed, last))
    with path.open("r+b") as file:
        file.seek(index.header[last].start)
        file.write(b"half of it is others' bytes")
    sparse.close()
    again = SparseFile.open(Disk(), path, index)
    assert (again.count(), claimed_by(again)) == (committed, set(range(committed))), "a rumour is no claim"
    assert prove(again) == list(range(last))
    again.commit()
    again.close()
    third = SparseFile.open(Disk(), path, index)
    assert third.count() == last, "what was proved is claimed"
    third.close()


def test_where_the_file_has_holes_nothing_is_read(tmp_path: Path, content: bytes, index: VerifiedChunkIndex) -> None:
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", index)
    big = max(index.header, key=lambda chunk: chunk.length if chunk.index else 0).index
    assert index.header[big].length > 8192
    assert big not in sparse.unproved(range(len(index.header)))
    assert not sparse.claims(big)
    sparse.close()


def test_an_empty_chunk_is_at_hand_from_the_beginning(tmp_path: Path) -> None:
    builder, parts = HeaderBuilder(Compression.NONE), (b"first", b"", b"last", b"")
    for part in parts:
        digest = HashType.SHA256.digest(part)
        builder.add(compressed_digest=digest, digest=digest, length=len(part), size=len(part))
    raw = builder.build()
    proved = verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF)
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", proved)
    assert [sparse.holds(number) for number in range(4)] == [False, True, False, True]
    sparse.accept(sparse.write([(0, b"first"), (2, b"last")]))
    assert sparse.complete
    sparse.close()


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
        claimed = claimed_by(again)
        assert claimed <= set(prove(again)), "a claim is false"
        assert len(claimed) >= promised[state.marks - 1 if state.marks else 0], "a promised chunk is lost"
        held = (folder / "x.zck").read_bytes()
        assert held[: index.header.header_size] == index.header.raw
        again.close()

    def verify(trace: Trace) -> None:
        assert_every_crash(trace, check, into=tmp_path / "crash", limit=60)

    stale_bitmap = 1  # the first sync makes the removal of an earlier file's bitmap durable: here there was none
    assert needless_syncs(recorder.trace(), verify, after=stale_bitmap) == []
