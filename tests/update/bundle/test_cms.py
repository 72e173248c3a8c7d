"""Detached CMS signatures: what is accepted, and every refusal by its name."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest
from asn1crypto import cms as asn1
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.keys import CODE_SIGNING, EMAIL_PROTECTION, NOW, Identity, issue, make_pki
from update.bundle.cms import CmsPolicy, verify
from update.bundle.cms_build import add_signature, sign
from update.bundle.cms_structure import MAX_CERTIFICATES, MAX_SIGNATURE_BYTES, MAX_SIGNERS, parse_signature
from update.errors import (
    CertificateError,
    ConfigurationError,
    FieldrelayError,
    LimitError,
    SignatureError,
    StateError,
    ThresholdError,
    UsageError,
)
from update.trust.signers import FileSigner

PKI = make_pki()
CONTENT = b'{"software": {"version": "1.2.0"}}'
POLICY = CmsPolicy(roots=(PKI.root.certificate,), intermediates=(PKI.intermediate.certificate,), at=NOW)


def signer(identity: Identity, *, pss: bool = False) -> FileSigner:
    return FileSigner(identity.certificate, identity.key, pss=pss)


def signed_by(*identities: Identity) -> bytes:
    return sign(CONTENT, [signer(identity) for identity in identities])


def names(signature: bytes, policy: CmsPolicy = POLICY, content: bytes = CONTENT) -> set[str]:
    return {each.name for each in verify(content, signature, policy)}


def rebuilt(signature: bytes, change: Callable[[asn1.SignedData], None], *, force: bool = True) -> bytes:
    """The same signature after `change` to its structure."""
    outer = asn1.ContentInfo.load(signature)
    change(outer["content"])
    return outer.dump(force=force)


def put(sequence: core.Sequence, key: str, value: object) -> None:
    """Assignment into an asn1crypto sequence (None removes), which the stubs leave out: the product never changes one."""
    cast("dict[str, object]", sequence)[key] = value


def forged(attributes: list[dict[str, object]] | None, *, digest: str = "sha256", algorithm: str = "sha256_ecdsa") -> bytes:
    """Signed by a trusted key, correctly, over attributes that must not be accepted (None: over the content itself)."""
    identity = PKI.signers[0]
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    built = None if attributes is None else asn1.CMSAttributes(attributes)
    value = identity.key.sign(CONTENT if built is None else built.dump(), ec.ECDSA(hashes.SHA256()))

    def change(data: asn1.SignedData) -> None:
        info = data["signer_infos"][0]
        put(info, "signed_attrs", built)
        put(info, "digest_algorithm", {"algorithm": digest})
        put(info, "signature_algorithm", {"algorithm": algorithm})
        put(info, "signature", value)

    return rebuilt(signed_by(identity), change)


TYPE: dict[str, object] = {"type": "content_type", "values": ["data"]}
MESSAGE_DIGEST: dict[str, object] = {"type": "message_digest", "values": [hashlib.sha256(CONTENT).digest()]}


@pytest.mark.parametrize("identity", [*PKI.signers, PKI.rsa], ids=lambda identity: identity.name)
def test_a_signature_by_a_trusted_signer_names_him(identity: Identity) -> None:
    (found,) = verify(CONTENT, signed_by(identity), POLICY)
    assert found.name == identity.name
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    spki = identity.key.public_key().public_bytes(serialization.Encoding.DER, form)
    assert found.key_id == hashlib.sha256(spki).hexdigest()


def test_rsa_pss_is_accepted() -> None:
    assert names(sign(CONTENT, [signer(PKI.rsa, pss=True)])) == {"rsa"}


def test_a_p384_key_signs_with_sha384() -> None:
    identity = issue("p384", PKI.intermediate, purposes=[CODE_SIGNING], key=ec.generate_private_key(ec.SECP384R1()))
    assert names(signed_by(identity)) == {"p384"}


def test_other_content_is_refused() -> None:
    with pytest.raises(SignatureError, match="other content"):
        verify(CONTENT + b" ", signed_by(PKI.signers[0]), POLICY)


def test_a_signature_value_by_another_key_is_refused() -> None:
    other = asn1.ContentInfo.load(signed_by(PKI.signers[1]))["content"]["signer_infos"][0]["signature"].native
    swapped = rebuilt(signed_by(PKI.signers[0]), lambda data: put(data["signer_infos"][0], "signature", other))
    with pytest.raises(SignatureError, match="not by the key"):
        verify(CONTENT, swapped, POLICY)


# --- the threshold


def test_several_signers_are_all_named() -> None:
    assert names(signed_by(*PKI.signers), replace(POLICY, threshold=3)) == {"signer0", "signer1", "signer2"}


def test_fewer_keys_than_the_threshold_are_refused() -> None:
    with pytest.raises(ThresholdError, match="1 of 2"):
        verify(CONTENT, signed_by(PKI.signers[0]), replace(POLICY, threshold=2))


def test_one_good_and_one_expired_signer_make_one_not_two() -> None:
    signature = signed_by(PKI.signers[0], PKI.expired)
    assert names(signature) == {"signer0"}
    with pytest.raises(ThresholdError, match=r"1 of 2.*refused.*expired"):
        verify(CONTENT, signature, replace(POLICY, threshold=2))


def test_require_all_refuses_one_bad_signer_beside_a_good_one() -> None:
    with pytest.raises(CertificateError):
        verify(CONTENT, signed_by(PKI.signers[0], PKI.expired), replace(POLICY, require_all=True))


def test_the_same_signer_info_twice_counts_once() -> None:
    signature = signed_by(PKI.signers[0])
    info = asn1.ContentInfo.load(signature)["content"]["signer_infos"][0]
    doubled = rebuilt(signature, lambda data: put(data, "signer_infos", [info, info]))
    assert len(parse_signature(doubled).claims) == 2
    assert len(verify(CONTENT, doubled, POLICY)) == 1
    with pytest.raises(ThresholdError):
        verify(CONTENT, doubled, replace(POLICY, threshold=2))


def test_the_same_key_under_two_certificates_counts_once() -> None:
    first = PKI.signers[0]
    second = issue("alias", PKI.intermediate, key=first.key, purposes=[CODE_SIGNING])
    one = asn1.ContentInfo.load(signed_by(first))["content"]

    def merge(data: asn1.SignedData) -> None:
        put(data, "signer_infos", [*data["signer_infos"], *one["signer_infos"]])
        put(data, "certificates", [*certificates(data), *certificates(one)])

    both = rebuilt(signed_by(second), merge)
    assert len(verify(CONTENT, both, replace(POLICY, require_all=True))) == 1
    with pytest.raises(ThresholdError):
        verify(CONTENT, both, replace(POLICY, threshold=2))


def certificates(data: asn1.SignedData) -> list[object]:
    held = data["certificates"]
    assert not isinstance(held, core.Void)
    return [each.chosen for each in held]


# --- adding a signature later


def test_a_signature_added_later_counts_and_keeps_the_earlier_ones() -> None:
    first = signed_by(PKI.signers[0])
    second = add_signature(first, CONTENT, signer(PKI.rsa, pss=True))
    third = add_signature(second, CONTENT, signer(PKI.signers[2]))
    assert names(third, replace(POLICY, threshold=3, require_all=True)) == {"signer0", "rsa", "signer2"}


def test_a_signature_is_not_added_to_other_content() -> None:
    with pytest.raises(SignatureError, match="other content"):
        add_signature(signed_by(PKI.signers[0]), b"another description", signer(PKI.signers[1]))


def test_a_key_does_not_sign_twice() -> None:
    with pytest.raises(StateError):
        add_signature(signed_by(PKI.signers[0]), CONTENT, signer(PKI.signers[0]))
    with pytest.raises(StateError):
        sign(CONTENT, [signer(PKI.signers[0]), signer(PKI.signers[0])])


def test_nobody_signs_nothing() -> None:
    with pytest.raises(UsageError):
        sign(CONTENT, [])


def test_rsa_signatures_are_reproducible() -> None:
    assert signed_by(PKI.rsa) == signed_by(PKI.rsa)


# --- certificates


@pytest.mark.parametrize("identity", [PKI.expired, PKI.future, PKI.stranger], ids=lambda identity: identity.name)
def test_a_signer_outside_his_validity_or_of_another_ca_is_refused(identity: Identity) -> None:
    with pytest.raises(CertificateError):
        verify(CONTENT, signed_by(identity), POLICY)


def test_the_time_is_the_policys_choice() -> None:
    policy = replace(POLICY, at=datetime(2024, 6, 1, tzinfo=UTC))
    assert names(signed_by(PKI.expired), policy) == {"expired"}
    with pytest.raises(CertificateError, match="not at 2044"):
        verify(CONTENT, signed_by(PKI.signers[0]), replace(POLICY, at=datetime(2044, 2, 1, tzinfo=UTC)))


def test_an_expired_root_ends_everything_below_it() -> None:
    root = issue("old-root", None, authority=True, end=datetime(2025, 1, 1, tzinfo=UTC))
    identity = issue("below", root, purposes=[CODE_SIGNING])
    policy = CmsPolicy(roots=(root.certificate,), at=NOW)
    with pytest.raises(CertificateError):
        verify(CONTENT, signed_by(identity), policy)
    assert names(signed_by(identity), replace(policy, at=datetime(2024, 6, 1, tzinfo=UTC))) == {"below"}


def test_the_purpose_must_be_present_and_right() -> None:
    without = issue("no-purpose", PKI.intermediate)
    for identity in (PKI.email, without):
        with pytest.raises(CertificateError):
            verify(CONTENT, signed_by(identity), POLICY)
    assert names(signed_by(PKI.email), replace(POLICY, purpose=EMAIL_PROTECTION)) == {"email"}
    assert names(signed_by(without), replace(POLICY, purpose=None)) == {"no-purpose"}


def test_an_intermediate_comes_from_the_policy_unless_it_says_otherwise() -> None:
    policy = replace(POLICY, intermediates=())
    embedded = sign(CONTENT, [signer(PKI.signers[0])], extra_certificates=[PKI.intermediate.certificate])
    for signature in (signed_by(PKI.signers[0]), embedded):
        with pytest.raises(CertificateError):
            verify(CONTENT, signature, policy)
    assert names(embedded, replace(policy, use_embedded_intermediates=True)) == {"signer0"}


def test_an_embedded_root_is_never_an_anchor() -> None:
    forgery = sign(CONTENT, [signer(PKI.stranger)], extra_certificates=[PKI.stranger_root.certificate])
    with pytest.raises(CertificateError):
        verify(CONTENT, forgery, replace(POLICY, use_embedded_intermediates=True))


def test_only_the_named_signers_are_accepted() -> None:
    policy = replace(POLICY, signer_names=("signer1",))
    assert names(signed_by(PKI.signers[1]), policy) == {"signer1"}
    assert names(signed_by(*PKI.signers), policy) == {"signer1"}
    with pytest.raises(CertificateError, match="signer0"):
        verify(CONTENT, signed_by(PKI.signers[0]), policy)


def test_a_revoked_signer_is_refused_whatever_the_age_of_the_list() -> None:
    crl = _revoke(PKI.intermediate, PKI.signers[0])
    policy = replace(POLICY, crls=(crl,))
    assert names(signed_by(PKI.signers[1]), policy) == {"signer1"}
    with pytest.raises(CertificateError, match="revoked"):
        verify(CONTENT, signed_by(PKI.signers[0]), policy)


def test_a_revocation_list_that_the_issuer_did_not_sign_revokes_nothing() -> None:
    fake = Identity("fake", PKI.intermediate.certificate, PKI.stranger_root.key)
    assert names(signed_by(PKI.signers[0]), replace(POLICY, crls=(_revoke(fake, PKI.signers[0]),))) == {"signer0"}


def test_a_revoked_intermediate_is_refused() -> None:
    policy = replace(POLICY, crls=(_revoke(PKI.root, PKI.intermediate),))
    with pytest.raises(CertificateError, match="revoked"):
        verify(CONTENT, signed_by(PKI.signers[0]), policy)


def _revoke(issuer: Identity, revoked: Identity) -> x509.CertificateRevocationList:
    entry = x509.RevokedCertificateBuilder().serial_number(revoked.certificate.serial_number)
    entry = entry.revocation_date(datetime(2024, 2, 1, tzinfo=UTC))
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(datetime(2024, 2, 1, tzinfo=UTC))
        .next_update(datetime(2024, 3, 1, tzinfo=UTC))
        .add_revoked_certificate(entry.build())
        .sign(issuer.key, hashes.SHA256())
    )


def test_a_weak_rsa_key_is_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 the weak key is what is refused
    identity = issue("weak", PKI.intermediate, purposes=[CODE_SIGNING], key=weak)
    with pytest.raises(SignatureError, match="1024 bits"):
        verify(CONTENT, sign(CONTENT, [signer(identity)]), POLICY)


def test_a_policy_that_accepts_anything_cannot_be_made() -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        replace(POLICY, threshold=0)
    with pytest.raises(ConfigurationError, match="root"):
        replace(POLICY, roots=())
    with pytest.raises(ConfigurationError, match="time zone"):
        replace(POLICY, at=NOW.replace(tzinfo=None))


# --- structure


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
        put(data, "signer_infos", [asn1.SignerInfo.load(b"\x30" + _length(len(body)) + body)])

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
    one = certificates(certificate)[0]
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
        nested = b"\x30" + _length(len(nested)) + nested
    with pytest.raises(SignatureError):
        verify(CONTENT, nested, POLICY)


def _length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded


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


@settings(max_examples=30)
@given(st.binary(max_size=2000), st.sets(st.integers(0, 2), min_size=1))
def test_whatever_was_signed_verifies_for_exactly_its_signers(content: bytes, chosen: set[int]) -> None:
    signature = sign(content, [signer(PKI.signers[each]) for each in chosen])
    assert names(signature, replace(POLICY, threshold=len(chosen)), content) == {f"signer{each}" for each in chosen}
