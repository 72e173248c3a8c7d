import gzip
import hashlib
import random
from pathlib import Path

import pytest
import zstandard

from node_agent.handlers.part import Part
from node_agent.handlers.raw import RawWriter, plain_size
from tests.builders.bundles import DEMO, describe, image, signed, verified
from update.bundle.verified import VerifiedBundle
from update.durable import Disk, Kind, Operation
from update.errors import CompressionError, HashMismatchError, ReadBackError

_PLAIN = random.Random(3).randbytes(700_000) + bytes(300_000)


def _bundle(folder: Path, stored: bytes, **attributes: object) -> VerifiedBundle:
    return verified(signed(folder, describe(images=[image("i", stored, device="/dev/x", **attributes)]), {"i": stored}))


def _write(bundle: VerifiedBundle, path: Path, disk: Disk | None = None, *, resume: bool = False) -> RawWriter:
    (entry,) = bundle.description.select(DEMO).images
    with (disk or Disk()).open_device(path) as file:
        writer = RawWriter(bundle, entry, Part("root", file), resume=resume)
        list(writer.write())
        list(writer.read_back())
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "part.img"
    path.write_bytes(b"\xee" * (len(_PLAIN) + 5000))
    return path


@pytest.mark.parametrize(
    ("stored", "compressed"),
    [(_PLAIN, ""), (gzip.compress(_PLAIN), "zlib"), (zstandard.ZstdCompressor(write_checksum=True).compress(_PLAIN), "zstd")],
)
def test_the_plain_content_arrives_whatever_the_storage(tmp_path: Path, path: Path, stored: bytes, compressed: str) -> None:
    attributes: dict[str, object] = {"compressed": compressed} if compressed else {}
    bundle = _bundle(tmp_path, stored, offset=4096, **attributes)
    writer = _write(bundle, path)
    assert path.read_bytes() == b"\xee" * 4096 + _PLAIN + b"\xee" * 904
    assert (writer.size, writer.sha256) == (len(_PLAIN), hashlib.sha256(_PLAIN).hexdigest())
    assert plain_size(bundle, bundle.description.select(DEMO).images[0]) == len(_PLAIN)


def test_the_signed_description_says_the_size_best(tmp_path: Path) -> None:
    stored = gzip.compress(_PLAIN)
    bundle = _bundle(tmp_path, stored, compressed="zlib", properties={"decompressed-size": "123456789"})
    assert plain_size(bundle, bundle.description.select(DEMO).images[0]) == 123_456_789


@pytest.mark.parametrize(
    ("stored", "compressed"), [(b"", "zlib"), (b"ab", "zlib"), (b"", "zstd"), (b"(\xb5/", "zstd"), (b"x" * 40, "zstd")]
)
def test_a_size_that_cannot_be_told_is_none_and_the_content_is_refused(
    tmp_path: Path, path: Path, stored: bytes, compressed: str
) -> None:
    bundle = _bundle(tmp_path, stored, compressed=compressed)
    assert plain_size(bundle, bundle.description.select(DEMO).images[0]) >= 0
    with pytest.raises(CompressionError):
        _write(bundle, path)


def test_a_resumed_write_writes_only_what_differs(tmp_path: Path, path: Path) -> None:
    bundle = _bundle(tmp_path, _PLAIN)
    _write(bundle, path)
    with path.open("r+b") as file:
        file.seek(600_000)
        file.write(b"torn")
    seen: list[Operation] = []
    writer = _write(bundle, path, Disk(seen.append), resume=True)
    assert path.read_bytes().startswith(_PLAIN)
    writes = [operation for operation in seen if operation.kind is Kind.WRITE]
    assert len(writes) == 1
    assert writer.kept_bytes == len(_PLAIN) - len(writes[0].data) > 0


def test_a_bundle_that_changed_since_it_was_verified_is_noticed(tmp_path: Path, path: Path) -> None:
    bundle = _bundle(tmp_path, _PLAIN)
    content = bytearray(bundle.file.read_bytes())
    content[bundle.members["i"].offset + 1000] ^= 1
    bundle.file.write_bytes(content)
    with pytest.raises(HashMismatchError):
        _write(bundle, path)


def test_a_part_that_changed_since_it_was_written_is_noticed(tmp_path: Path, path: Path) -> None:
    bundle = _bundle(tmp_path, _PLAIN)
    (entry,) = bundle.description.select(DEMO).images
    with Disk().open_device(path) as file:
        writer = RawWriter(bundle, entry, Part("root", file), resume=False)
        list(writer.write())
        file.write_at(len(_PLAIN) - 1, b"\x01")
        with pytest.raises(ReadBackError):
            list(writer.read_back())
