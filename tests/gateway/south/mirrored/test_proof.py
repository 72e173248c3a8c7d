import gzip
import hashlib
import io
import lzma
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.mirrored import proof
from gateway.south.mirrored.ostree import digest_of_filez
from gateway.south.mirrored.proof import check_file
from gateway.south.mirrored.rules import Check, Proof
from update.errors import LengthOrHashError

DATA = b"a chunk of something " * 999
PACKED = {"zstd": zstandard.compress(DATA), "xz": lzma.compress(DATA), "gzip": gzip.compress(DATA)}
DIGESTS = [hashlib.new("sha512_256", DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()]


def framed(fixed: bytes, target: bytes) -> bytes:
    """A header of OSTree without extended attributes: fixed numbers, link target, and where the target ends."""
    body = fixed + target + b"\0"
    width = 1 if len(body) + 1 <= 255 else 2
    return body + len(body).to_bytes(width, "little")


def prefixed(header: bytes) -> bytes:
    return len(header).to_bytes(4, "big") + bytes(4) + header


def filez(content: bytes, target: bytes = b"", *, announced: int | None = None) -> tuple[bytes, str]:
    """A packed file and the digest of the object, as OSTree's documentation has them."""
    numbers = b"".join(value.to_bytes(4, "big") for value in (1000, 1000, 0o100644, 0))
    size = (len(content) if announced is None else announced).to_bytes(8, "big")
    deflate = zlib.compressobj(wbits=-15)
    packed = prefixed(framed(size + numbers, target)) + deflate.compress(content) + deflate.flush()
    return packed, hashlib.sha256(prefixed(framed(numbers, target)) + content).hexdigest()


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("packing", PACKED)
def test_a_chunk_is_proved_whatever_it_is_packed_with(tmp_path: Path, packing: str, digest: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(PACKED[packing])
    check_file(Proof(Check.CASYNC_CHUNK, digest), file, max_bytes=1 << 20)


@pytest.mark.parametrize("packing", PACKED)
def test_a_chunk_that_unpacks_to_too_much_is_refused(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "MAX_CHUNK_BYTES", len(DATA) - 1)
    file = tmp_path / "x"
    file.write_bytes(PACKED[packing])
    with pytest.raises(LengthOrHashError, match="unpack"):
        check_file(Proof(Check.CASYNC_CHUNK, DIGESTS[0]), file, max_bytes=1 << 20)


@pytest.mark.parametrize("check", Check)
@given(data=st.binary(max_size=100))
@settings(max_examples=30)
def test_wrong_content_is_refused_by_name(check: Check, data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile"
    for content in (data, PACKED["zstd"][:30] + data, PACKED["gzip"][:30] + data, PACKED["xz"][:30] + data, filez(data)[0]):
        file.write_bytes(content)
        with pytest.raises(LengthOrHashError):
            check_file(Proof(check, "00" * 32), file, max_bytes=1000)


@given(st.binary(max_size=500), st.binary(max_size=400).filter(lambda target: b"\0" not in target))
def test_the_object_behind_a_packed_file_has_its_digest(content: bytes, target: bytes) -> None:
    packed, digest = filez(content, target)
    assert digest_of_filez(io.BytesIO(packed), max_bytes=500) == digest


def test_a_file_that_unpacks_to_more_or_less_than_it_announces_is_refused() -> None:
    for announced in (5, 100_000_000):
        packed, _ = filez(bytes(1_000_000), announced=announced)
        with pytest.raises(LengthOrHashError):
            digest_of_filez(io.BytesIO(packed), max_bytes=50_000_000)


@pytest.mark.parametrize("cut", [0, 7, 20, 40])
def test_a_cut_file_is_refused(cut: int) -> None:
    packed, _ = filez(b"content")
    with pytest.raises(LengthOrHashError):
        digest_of_filez(io.BytesIO(packed[:cut]), max_bytes=500)
