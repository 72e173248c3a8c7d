import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest

from tests.update.chunks.models import KINDS, material
from update.chunks.chunker import file_reader, index_image
from update.chunks.unpack import unpack
from update.chunks.zchunk import parse_header
from update.durable import Disk, Kind, Operation
from update.errors import ChunkError, StoreError
from update.publish.images import encoder_name, write_zchunk, zck_header

MIB = 1 << 20


def image_of(folder: Path, content: bytes) -> Path:
    image = folder / "image"
    image.write_bytes(content)
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_file_unpacks_to_its_image(kind: str, workers: int, tmp_path: Path) -> None:
    content = material(kind, 1_500_000, 4)
    index = write_zchunk(image_of(tmp_path, content), tmp_path / "out.zck", Disk(), workers=workers)
    file = (tmp_path / "out.zck").read_bytes()
    assert b"".join(data for _, data in unpack(io.BytesIO(file))) == content
    assert (index.total_length, index.image_size, index.raw) == (len(file), len(content), file[: index.header_size])


def test_the_index_is_that_of_the_chunker(tmp_path: Path) -> None:
    image = image_of(tmp_path, material("planted", 2 * MIB, 2))
    index = write_zchunk(image, tmp_path / "out.zck", Disk())
    with image.open("rb") as file:
        pieces = list(index_image(file_reader(file.fileno()), image.stat().st_size))
    assert [(chunk.offset, chunk.size, chunk.digest) for chunk in index] == pieces


def test_the_same_image_gives_the_same_file_whatever_the_threads(tmp_path: Path) -> None:
    image = image_of(tmp_path, material("letters", MIB, 2))
    files = [tmp_path / f"{workers}.zck" for workers in (1, 2, 4)]
    for workers, file in enumerate(files, 1):
        write_zchunk(image, file, Disk(), workers=workers)
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1


def test_an_empty_image_is_a_file_without_chunks(tmp_path: Path) -> None:
    index = write_zchunk(image_of(tmp_path, b""), tmp_path / "out.zck", Disk())
    assert len(index) == 0
    assert (tmp_path / "out.zck").read_bytes() == index.raw


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_zchunk(
        image_of(tmp_path, material("random", MIB, 1)),
        tmp_path / "out.zck",
        Disk(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (MIB, MIB)
    assert seen == sorted(set(seen))


def test_the_header_can_be_taken_from_the_file(tmp_path: Path) -> None:
    index = write_zchunk(image_of(tmp_path, material("random", MIB, 1)), tmp_path / "out.zck", Disk())
    assert zck_header(tmp_path / "out.zck") == index.raw
    assert list(parse_header(zck_header(tmp_path / "out.zck"))) == list(index)


def test_another_file_has_no_header(tmp_path: Path) -> None:
    with pytest.raises(ChunkError):
        zck_header(image_of(tmp_path, b"no zchunk file"))
    with pytest.raises(StoreError):
        zck_header(tmp_path / "absent")


class StoppedError(Exception):
    pass


def test_a_failure_at_any_write_leaves_nothing_and_the_old_file(tmp_path: Path) -> None:
    image = image_of(tmp_path, material("random", 300_000, 1))
    operations: list[Operation] = []
    write_zchunk(image, tmp_path / "count.zck", Disk(operations.append))
    (tmp_path / "count.zck").unlink()
    out = tmp_path / "out.zck"
    renamed = next(at for at, operation in enumerate(operations) if operation.kind is Kind.RENAME)
    for stop in range(renamed + 1):
        out.write_bytes(b"old")
        left = [stop]

        def observe(operation: Operation, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise StoppedError

        with pytest.raises(StoppedError):
            write_zchunk(image, out, Disk(observe))
        assert out.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "out.zck"]


def test_the_content_is_synced_before_its_name_and_the_name_after(tmp_path: Path) -> None:
    operations: list[Operation] = []
    write_zchunk(image_of(tmp_path, material("random", 99_999, 1)), tmp_path / "out.zck", Disk(operations.append))
    renamed = next(at for at, operation in enumerate(operations) if operation.kind is Kind.RENAME)
    staged = operations[renamed].path
    last_write = max(at for at, operation in enumerate(operations) if operation.kind is Kind.WRITE and operation.path == staged)
    synced = [at for at, operation in enumerate(operations) if operation.kind is Kind.SYNC and operation.path == staged]
    assert any(last_write < at < renamed for at in synced)
    assert Operation(Kind.SYNC_FOLDER, tmp_path) in operations[renamed:]


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"):
        write_zchunk(tmp_path / "absent", tmp_path / "out.zck", Disk())
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    image = image_of(tmp_path, b"")
    with image.open("r+b") as file:
        file.truncate(64 * MIB)
        for at in range(0, 64 * MIB, MIB):
            file.seek(at)
            file.write(material("random", 65536, at))
    tracemalloc.start()
    try:
        write_zchunk(image, tmp_path / "out.zck", Disk(), workers=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB


def test_the_encoder_is_named() -> None:
    assert encoder_name().startswith("libzstd 1.")
