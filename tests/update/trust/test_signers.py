"""Key files and the signers made from them."""

import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.keys import CODE_SIGNING, issue, make_pki, private_pem
from update.durable import Disk, Kind, Operation
from update.errors import ConfigurationError, StateError
from update.trust.signers import (
    Algorithm,
    FileSigner,
    HashName,
    KeyKind,
    create_key,
    load_private_key,
    load_role_key,
    load_role_signer,
    public_pem,
    read_certificate,
)


@pytest.mark.parametrize("kind", KeyKind)
def test_a_made_key_is_private_to_its_owner_and_reads_back(tmp_path: Path, kind: KeyKind) -> None:
    path = tmp_path / "role.key"
    made = create_key(Disk(), path, kind)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_private_key(path).public_key() == made.public_key()


def test_a_key_file_is_never_readable_by_others_not_even_before_its_rename(tmp_path: Path) -> None:
    modes: list[int] = []

    def observe(operation: Operation) -> None:
        if operation.kind is Kind.WRITE:
            modes.append(stat.S_IMODE(operation.path.stat().st_mode))

    create_key(Disk(observe), tmp_path / "role.key")
    assert modes == [0o600]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "role.key"
    create_key(Disk(), path)
    before = path.read_bytes()
    with pytest.raises(StateError):
        create_key(Disk(), path)
    assert path.read_bytes() == before


def test_an_encrypted_key_asks_for_its_passphrase_by_path(tmp_path: Path) -> None:
    path, asked = tmp_path / "role.key", list[Path]()
    made = create_key(Disk(), path, passphrase=b"correct horse")
    assert b"ENCRYPTED" in path.read_bytes()

    def passphrase(asked_for: Path) -> bytes:
        asked.append(asked_for)
        return b"correct horse"

    assert load_private_key(path, passphrase).public_key() == made.public_key()
    assert asked == [path]


def test_a_wrong_or_missing_passphrase_is_named(tmp_path: Path) -> None:
    path = tmp_path / "role.key"
    create_key(Disk(), path, passphrase=b"correct horse")
    with pytest.raises(ConfigurationError, match="no passphrase"):
        load_private_key(path)
    with pytest.raises(ConfigurationError, match="passphrase is wrong"):
        load_private_key(path, lambda _: b"battery")


def test_an_unencrypted_key_asks_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "role.key"
    create_key(Disk(), path)

    def never(_path: Path) -> bytes:
        raise AssertionError

    load_private_key(path, never)


def test_weak_foreign_missing_and_huge_key_files_are_refused(tmp_path: Path) -> None:
    weak, foreign, huge = tmp_path / "weak.key", tmp_path / "ed448.key", tmp_path / "huge.key"
    weak.write_bytes(private_pem(rsa.generate_private_key(65537, 1024)))  # noqa: S505 the weak key is what is refused
    form = serialization.PrivateFormat.PKCS8
    foreign_key = ed448.Ed448PrivateKey.generate()
    foreign.write_bytes(foreign_key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    huge.write_bytes(make_pki().root.key_pem + b"\n" * 70_000)
    for path in (weak, foreign, huge, tmp_path / "absent.key", tmp_path):
        with pytest.raises(ConfigurationError):
            load_private_key(path)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_key_or_certificate_raise_only_the_named_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "file.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + data)
    for read in (load_private_key, read_certificate, load_role_key):
        with pytest.raises(ConfigurationError):
            read(path)


def test_a_signer_needs_the_key_of_its_certificate() -> None:
    pki = make_pki()
    with pytest.raises(ConfigurationError, match="does not belong"):
        FileSigner(pki.signers[0].certificate, pki.signers[1].key)


def test_an_ed25519_key_is_refused_for_cms_before_anything_is_signed(tmp_path: Path) -> None:
    key = create_key(Disk(), tmp_path / "ed.key", KeyKind.ED25519)
    identity = issue("ed", make_pki().intermediate, key=key, purposes=[CODE_SIGNING])
    with pytest.raises(ConfigurationError, match="ECDSA P-256"):
        FileSigner(identity.certificate, key)


def test_a_signer_read_from_files_signs_by_its_scheme(tmp_path: Path) -> None:
    files = make_pki().write(tmp_path)
    signer = FileSigner.from_files(files.certificate("signer0"), files.key("signer0"))
    assert signer.scheme.algorithm is Algorithm.ECDSA
    public = signer.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signer.sign(b"tbs"), b"tbs", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(signer.sign(b"tbs"), b"other", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("pss", [False, True])
def test_an_rsa_signer_signs_with_either_padding(*, pss: bool) -> None:
    identity = make_pki().rsa
    signer = FileSigner(identity.certificate, identity.key, pss=pss)
    assert signer.scheme.algorithm is (Algorithm.RSA_PSS if pss else Algorithm.RSA_PKCS1V15)
    public = signer.certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signer.sign(b"tbs"), b"tbs", signer.scheme.rsa_padding, hashes.SHA256())


def test_a_larger_curve_takes_a_larger_digest() -> None:
    identity = issue("p384", make_pki().intermediate, purposes=[CODE_SIGNING], key=ec.generate_private_key(ec.SECP384R1()))
    assert FileSigner(identity.certificate, identity.key).scheme.digest is HashName.SHA384


@pytest.mark.parametrize("kind", KeyKind)
def test_a_role_signer_and_the_published_half_of_its_key_are_one_tuf_key(tmp_path: Path, kind: KeyKind) -> None:
    private, public = tmp_path / "role.key", tmp_path / "role.pub"
    public.write_bytes(public_pem(create_key(Disk(), private, kind)))
    signer = load_role_signer(private)
    key = load_role_key(public)
    assert key.keyid == signer.public_key.keyid
    key.verify_signature(signer.sign(b"metadata"), b"metadata")
