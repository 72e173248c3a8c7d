"""Images that MCUboot's own imgtool makes and signs are read and verified here, and ours by it."""

import random
from pathlib import Path

import pytest

from tests.builders.mcuboot import make_image
from tests.interop.imgtool import Imgtool, need_imgtool
from update.bundle.mcuboot_image import ImageVersion, parse_image
from update.bundle.mcuboot_signature import load_image_key, verify_signature
from update.errors import ConfigurationError, DeviceImageError, HashMismatchError, SignatureError, UnsupportedError

pytestmark = pytest.mark.interop

KINDS = ("ecdsa-p256", "rsa-2048", "rsa-3072", "ed25519")


@pytest.fixture(scope="module")
def imgtool() -> Imgtool:
    return need_imgtool()


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(random.Random(1).randbytes(5000))
    return path


def _keys(imgtool: Imgtool, folder: Path, kind: str) -> tuple[Path, bytes]:
    private, public = folder / f"{kind}.pem", folder / f"{kind}.pub"
    imgtool.run("keygen", "-k", private, "-t", kind)
    imgtool.run("getpub", "-k", private, "-e", "pem", "-o", public)
    return private, public.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_is_verified_and_another_key_or_a_changed_image_is_not(
    imgtool: Imgtool, payload: Path, tmp_path: Path, kind: str
) -> None:
    private, public = _keys(imgtool, tmp_path, kind)
    data = imgtool.sign(payload, tmp_path / "signed.bin", "1.2.3+4", "-k", private, "-s", "5").read_bytes()
    image = parse_image(data)
    assert (image.version, image.security_counter) == (ImageVersion(1, 2, 3, 4), 5)
    verify_signature(image, load_image_key(public))
    (tmp_path / "other").mkdir()
    with pytest.raises(SignatureError):
        verify_signature(image, load_image_key(_keys(imgtool, tmp_path / "other", kind)[1]))
    forged = bytearray(data)
    forged[-1] ^= 1  # the signature stands last
    with pytest.raises(SignatureError):
        verify_signature(parse_image(bytes(forged)), load_image_key(public))


def test_an_unsigned_image_is_whole_and_has_no_signature(imgtool: Imgtool, payload: Path, tmp_path: Path) -> None:
    data = imgtool.sign(payload, tmp_path / "plain.bin", "2.0.0").read_bytes()
    image = parse_image(data)
    assert (image.version, image.security_counter) == (ImageVersion(2, 0, 0, 0), None)
    key = load_image_key(_keys(imgtool, tmp_path, "ed25519")[1])
    with pytest.raises(SignatureError):
        verify_signature(image, key)
    with pytest.raises(HashMismatchError):
        parse_image(data.replace(payload.read_bytes()[:8], bytes(8)))


@pytest.mark.parametrize("option", ["--pad", "--test", "--confirm"])
def test_an_image_that_brings_its_own_trailer_is_refused(imgtool: Imgtool, payload: Path, tmp_path: Path, option: str) -> None:
    data = imgtool.sign(payload, tmp_path / "padded.bin", "2.0.0", option).read_bytes()
    with pytest.raises(DeviceImageError):
        parse_image(data)


def test_an_encrypted_image_is_refused(imgtool: Imgtool, payload: Path, tmp_path: Path) -> None:
    private, public = _keys(imgtool, tmp_path, "ecdsa-p256")
    (tmp_path / "public.pem").write_bytes(public)
    data = imgtool.sign(payload, tmp_path / "secret.bin", "2.0.0", "-k", private, "-E", tmp_path / "public.pem").read_bytes()
    with pytest.raises(UnsupportedError):
        parse_image(data)


def test_an_image_of_our_builder_is_one_for_imgtool(imgtool: Imgtool, tmp_path: Path) -> None:
    made = tmp_path / "made.bin"
    made.write_bytes(make_image("1.2.3+4", b"body" * 100, counter=9))
    assert "1.2.3+4" in imgtool.run("verify", made)
    assert "9" in imgtool.run("dumpinfo", made)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        load_image_key(b"no key")
