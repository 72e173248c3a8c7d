"""Encrypted RAUC bundles: opened with a recipient's key, refused by name without it."""

import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.builders.keys import Identity, issue
from tests.builders.rauc import PKI, assemble, attached, manifest, payload, policy, tree_of, written
from tests.builders.signatures import signed_by
from update.bundle.rauc_crypt import Recipient, is_envelope, open_envelope
from update.bundle.rauc_layout import MAX_SIGNATURE_BYTES
from update.bundle.rauc_reader import RaucPolicy, rauc_policy, read_manifest, verify_rauc_bundle
from update.errors import (
    BundleError,
    CertificateError,
    ConfigurationError,
    ContainerError,
    DescriptionError,
    HashMismatchError,
    LimitError,
    SignatureError,
    TrustError,
    UnsupportedError,
)


def rsa_identity(name: str) -> Identity:
    return issue(name, PKI.root, key=rsa.generate_private_key(65537, 2048), digital_signature=False)


def recipient(identity: Identity) -> Recipient:
    assert isinstance(identity.key, rsa.RSAPrivateKey)
    return Recipient(identity.certificate, identity.key)


GATEWAY, DEVICE, OTHER = (rsa_identity(name) for name in ("gateway", "device", "other"))
CIPHER = payload(20, magic=b"\x00\x11\x22\x33")
TEXT = manifest(CIPHER, format_="crypt")


def enveloped(data: bytes, *identities: Identity) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(data)
    for identity in identities:
        builder = builder.add_recipient(identity.certificate)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def encrypted(folder: Path, inner: bytes, *identities: Identity) -> Path:
    return written(folder, assemble(CIPHER + tree_of(CIPHER)[1], enveloped(inner, *identities or (DEVICE, GATEWAY))))


def opening(identity: Identity) -> RaucPolicy:
    roots, intermediates = (PKI.root.certificate,), (PKI.intermediate.certificate,)
    return rauc_policy(roots, policy().cms.at, intermediates=intermediates, recipient=recipient(identity))


def test_a_recipient_verifies_the_signature_inside_and_the_tree_over_the_ciphertext(tmp_path: Path) -> None:
    file = encrypted(tmp_path, attached(TEXT))
    found = verify_rauc_bundle(file, opening(GATEWAY))
    assert [each.name for each in found.signers] == ["email"]
    assert read_manifest(file, recipient(GATEWAY)).format == "crypt"
    changed = bytearray(file.read_bytes())
    changed[5000] ^= 1
    with pytest.raises(HashMismatchError):
        verify_rauc_bundle(written(tmp_path, bytes(changed)), opening(GATEWAY))


def test_without_a_key_it_is_refused_by_name(tmp_path: Path) -> None:
    file = encrypted(tmp_path, attached(TEXT))
    for look in (lambda: verify_rauc_bundle(file, policy()), lambda: read_manifest(file)):
        with pytest.raises(UnsupportedError, match="encrypted for 2 recipients and its signature is inside"):
            look()


def test_a_key_that_is_none_of_the_recipients_is_refused_by_name(tmp_path: Path) -> None:
    file = encrypted(tmp_path, attached(TEXT))
    with pytest.raises(UnsupportedError, match=f"encrypted for others.*{DEVICE.certificate.serial_number:x}"):
        verify_rauc_bundle(file, opening(OTHER))


def test_the_wrong_key_of_the_right_certificate_opens_nothing(tmp_path: Path) -> None:
    """Whether the library refuses, or yields other bytes (PKCS #1 v1.5, implicit rejection), is all the same."""
    assert isinstance(OTHER.key, rsa.RSAPrivateKey)
    wrong = RaucPolicy(policy().cms, recipient=Recipient(GATEWAY.certificate, OTHER.key))
    with pytest.raises(SignatureError):
        verify_rauc_bundle(encrypted(tmp_path, attached(TEXT)), wrong)


def test_who_may_encrypt_may_not_sign(tmp_path: Path) -> None:
    """Anybody can encrypt for the gateway; the signature inside is judged as any other."""
    with pytest.raises(CertificateError):
        verify_rauc_bundle(encrypted(tmp_path, attached(TEXT, PKI.stranger)), opening(GATEWAY))


@pytest.mark.parametrize(
    ("inner", "refusal"),
    [
        (attached(manifest(CIPHER)), DescriptionError),
        (signed_by(PKI.email), ContainerError),
        (b"no CMS", SignatureError),
        (bytes(MAX_SIGNATURE_BYTES + 1), LimitError),
    ],
    ids=["a verity manifest", "a detached signature", "no CMS", "too much"],
)
def test_only_the_signed_manifest_of_a_crypt_bundle_is_accepted_inside(
    tmp_path: Path, inner: bytes, refusal: type[BundleError | TrustError]
) -> None:
    content = assemble(CIPHER + tree_of(CIPHER)[1], enveloped(inner, GATEWAY))
    with pytest.raises(refusal):
        verify_rauc_bundle(written(tmp_path, content), opening(GATEWAY))


def test_a_recipient_is_a_certificate_and_its_own_rsa_key() -> None:
    found = Recipient.from_pem(GATEWAY.certificate_pem, GATEWAY.key_pem)
    assert found.certificate == GATEWAY.certificate
    signs = PKI.signers[0]
    for certificate, key in (
        (GATEWAY.key_pem, GATEWAY.certificate_pem),
        (GATEWAY.certificate_pem, DEVICE.key_pem),
        (signs.certificate_pem, signs.key_pem),
        (b"", b""),
    ):
        with pytest.raises(ConfigurationError, match="recipient"):
            Recipient.from_pem(certificate, key)


def test_an_envelope_is_told_from_a_signature() -> None:
    assert is_envelope(enveloped(b"x", GATEWAY))
    assert not is_envelope(attached(TEXT))
    with pytest.raises(SignatureError):
        is_envelope(b"\x30\x03abc")


def test_a_damaged_envelope_is_refused_by_name() -> None:
    rng, good = random.Random(3), enveloped(attached(TEXT), DEVICE, GATEWAY)
    for _ in range(200):
        damaged = bytearray(good)
        damaged[rng.randrange(len(good))] = rng.randrange(256)
        try:
            if is_envelope(bytes(damaged)):
                open_envelope(bytes(damaged), recipient(GATEWAY))
        except (BundleError, TrustError):
            continue
