"""Signatures whose structure is odd or hostile: each refused by its name, whoever signed it."""

import hashlib
import random
from dataclasses import replace

import pytest
from asn1crypto import cms as asn1
from asn1crypto import core
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.keys import CODE_SIGNING, issue
from tests.builders.signatures import (
    CONTENT,
    MESSAGE_DIGEST,
    PKI,
    POLICY,
    TYPE,
    certificates_of,
    der_length,
    forged,
    names,
    put,
    rebuilt,
    signed_by,
    signer,
)
from update.bundle.cms import verify
from update.bundle.cms_build import sign
from update.bundle.cms_structure import MAX_CERTIFICATES, MAX_SIGNATURE_BYTES, MAX_SIGNERS
from update.errors import (
    FieldrelayError,
    LimitError,
    SignatureError,
)


@pytest.mark.parametrize(
    "attributes",
    [
        [TYPE],
        [MESSAGE_DIGEST],
        [TYPE, MESSAGE_DIGEST, {"type": "message_digest", "values": [hashlib.sha256(b"other").digest()]}],
        [TYPE, TYPE, MESSAGE_DIGEST],
        [TYPE, {"type": "message_digest", "values": [hashlib.sha256(CONTENT).digest(), hashlib.sha256(b"other").digest()]}],
        [{"type": "content_type", "values": ["enveloped_data"]}, MESSAGE_DIGEST],
        [TYPE, {"type": "message_digest", "values": [b""]}],
    ],
    ids=["no digest", "no type", "two digests", "type twice", "two values", "other type", "empty digest"],
)
def test_odd_signed_attributes_are_refused_although_correctly_signed(attributes: list[dict[str, object]]) -> None:
    with pytest.raises(SignatureError):
        verify(CONTENT, forged(attributes), POLICY)


def test_the_forger_of_these_tests_can_make_an_acceptable_signature() -> None:
    assert names(forged([TYPE, MESSAGE_DIGEST])) == {"signer0"}


def test_a_signature_without_signed_attributes_is_refused() -> None:
    with pytest.raises(SignatureError, match="no signed attributes"):
        verify(CONTENT, forged(None), POLICY)


def test_sha1_is_refused() -> None:
    digest: dict[str, object] = {"type": "message_digest", "values": [hashlib.sha1(CONTENT).digest()]}  # noqa: S324 it is what is refused
    with pytest.raises(SignatureError, match="sha1"):
        verify(CONTENT, forged([TYPE, digest], digest="sha1", algorithm="sha1_ecdsa"), POLICY)


@pytest.mark.parametrize("header", [b"\x31\x80", b"\x31\x4b"], ids=["indefinite", "der"])
def test_signed_attributes_count_only_as_signed_in_der(header: bytes) -> None:
    identity = PKI.signers[0]
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    contents = asn1.CMSAttributes([TYPE, MESSAGE_DIGEST]).contents or b""
    assert len(contents) == 0x4B
    end = b"\0\0" if header[1] == 0x80 else b""
    value = identity.key.sign(header + contents + end, ec.ECDSA(hashes.SHA256()))

    def change(data: asn1.SignedData) -> None:
        info = data["signer_infos"][0]
        fields = (info["sid"], info["digest_algorithm"], info["signature_algorithm"], core.OctetString(value))
        sid, digest, algorithm, signature = (each.dump() for each in fields)
        body = b"\x02\x01\x01" + sid + digest + b"\xa0\x80" + contents + b"\0\0" + algorithm + signature
        put(data, "signer_infos", [asn1.SignerInfo.load(b"\x30" + der_length(len(body)) + body)])

    signature = rebuilt(signed_by(identity), change, force=False)
    if end:
        with pytest.raises(SignatureError, match="not by the key"):
            verify(CONTENT, signature, POLICY)
    else:
        assert names(signature) == {"signer0"}


@pytest.mark.parametrize("algorithm", ["sha512_ecdsa", "sha256_rsa", "ecdsa", "ed25519", "sha256_dsa"])
def test_an_algorithm_that_does_not_fit_is_refused(algorithm: str) -> None:
    with pytest.raises(SignatureError):
        verify(CONTENT, forged([TYPE, MESSAGE_DIGEST], algorithm=algorithm), POLICY)


def test_attached_content_is_refused() -> None:
    def attach(data: asn1.SignedData) -> None:
        put(data, "encap_content_info", {"content_type": "data", "content": CONTENT})

    with pytest.raises(SignatureError, match="detached"):
        verify(CONTENT, rebuilt(signed_by(PKI.signers[0]), attach), POLICY)


def test_a_signature_without_its_certificate_is_refused() -> None:
    stripped = rebuilt(signed_by(PKI.signers[0]), lambda data: put(data, "certificates", None))
    with pytest.raises(SignatureError, match="nocerts"):
        verify(CONTENT, stripped, POLICY)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(SignatureError, match="malformed"):
        verify(CONTENT, signed_by(PKI.signers[0]) + b"\0", POLICY)


def test_sizes_and_counts_above_their_limits_are_refused() -> None:
    signature = signed_by(PKI.signers[0])
    info = asn1.ContentInfo.load(signature)["content"]["signer_infos"][0]
    many_signers = rebuilt(signature, lambda data: put(data, "signer_infos", [info] * (MAX_SIGNERS + 1)))
    certificate = asn1.ContentInfo.load(signature)["content"]
    one = certificates_of(certificate)[0]
    many_certificates = rebuilt(signature, lambda data: put(data, "certificates", [one] * (MAX_CERTIFICATES + 1)))
    for hostile in (b"0" * (MAX_SIGNATURE_BYTES + 1), many_signers, many_certificates):
        with pytest.raises(LimitError):
            verify(CONTENT, hostile, POLICY)


def test_no_signer_at_all_is_refused() -> None:
    with pytest.raises(SignatureError, match="no signer"):
        verify(CONTENT, rebuilt(signed_by(PKI.signers[0]), lambda data: put(data, "signer_infos", [])), POLICY)


def test_deep_nesting_is_refused() -> None:
    nested = b""
    for _ in range(10_000):
        nested = b"\x30" + der_length(len(nested)) + nested
    with pytest.raises(SignatureError):
        verify(CONTENT, nested, POLICY)


# --- hostile bytes

_SAMPLES = (
    sign(CONTENT, [signer(PKI.signers[0]), signer(PKI.rsa)], extra_certificates=[PKI.intermediate.certificate]),
    sign(CONTENT, [signer(PKI.rsa, pss=True)], extra_certificates=[PKI.intermediate.certificate]),
)


def judge(hostile: bytes) -> bool:
    """Whether a mutated signature is still accepted; any exception but a named refusal escapes."""
    try:
        verify(CONTENT, hostile, replace(POLICY, use_embedded_intermediates=True, require_all=True, intermediates=()))
    except FieldrelayError:
        return False
    return True


def mutate(rng: random.Random, sample: bytes) -> bytes:
    data = bytearray(sample)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randint(1, 8)]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                other = rng.randrange(len(data))
                data[at : at + 16] = data[other : other + 16]
    return bytes(data)


def attack(count: int, seed: int) -> int:
    rng = random.Random(seed)
    return sum(judge(mutate(rng, rng.choice(_SAMPLES))) for _ in range(count))


def test_mutated_signatures_raise_only_named_errors() -> None:
    accepted = attack(3_000, seed=20260601)
    assert accepted < 30, "mutants of unsigned parts may stay valid, but hardly any"


@pytest.mark.soak
def test_twenty_thousand_mutated_signatures_raise_only_named_errors() -> None:
    accepted = attack(20_000, seed=7)
    print(f"cms: 20000 mutations, {accepted} still valid (encodings of unsigned parts), seed 7")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_named_errors(data: bytes) -> None:
    assert not judge(data)


@settings(max_examples=60)
@given(st.data())
def test_a_mutant_never_makes_other_content_acceptable(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    with pytest.raises(FieldrelayError):
        verify(CONTENT + b"!", mutate(rng, _SAMPLES[0]), POLICY)


# --- what only OpenSSL, on the devices, would refuse


@pytest.mark.parametrize("listed", [[], [{"algorithm": "sha512"}]], ids=["none", "another"])
def test_a_digest_that_the_structure_does_not_list_is_refused(listed: list[dict[str, str]]) -> None:
    odd = rebuilt(signed_by(PKI.signers[0]), lambda data: put(data, "digest_algorithms", listed))
    with pytest.raises(SignatureError, match="digest sha256, the CMS lists"):
        verify(CONTENT, odd, POLICY)


def test_a_certificate_whose_signature_is_no_whole_number_of_bytes_is_refused() -> None:
    """Where its last bit is 0, as in every other certificate, the library that loads it sees nothing wrong."""
    made = (issue(f"signer{number}", PKI.intermediate, purposes=[CODE_SIGNING]) for number in range(64))
    identity = next(each for each in made if each.certificate.signature[-1] % 2 == 0)
    signature, value = signed_by(identity), identity.certificate.signature
    at = signature.index(value) - 1
    assert signature[at] == 0
    with pytest.raises(SignatureError, match="whole number of bytes"):
        verify(CONTENT, signature[:at] + b"\x01" + signature[at + 1 :], POLICY)


@pytest.mark.parametrize("sized", [0, 3, 0x80], ids=["none", "three", "endless"])
def test_a_version_of_the_wrong_length_is_refused(sized: int) -> None:
    signature = signed_by(PKI.signers[0])
    at = signature.index(b"\x02\x01\x01\x31") + 1
    with pytest.raises(SignatureError, match="malformed"):
        verify(CONTENT, signature[:at] + bytes([sized]) + signature[at + 1 :], POLICY)
