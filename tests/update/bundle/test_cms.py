"""Detached CMS signatures: what is accepted, and every refusal by its name."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asn1crypto import cms as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.builders.keys import CODE_SIGNING, EMAIL_PROTECTION, NOW, Identity, issue
from tests.builders.signatures import (
    CONTENT,
    PKI,
    POLICY,
    certificates_of,
    names,
    put,
    rebuilt,
    signed_by,
    signer,
)
from update.bundle.cms import CmsPolicy, verify
from update.bundle.cms_build import sign
from update.bundle.cms_structure import parse_signature
from update.errors import (
    CertificateError,
    ConfigurationError,
    SignatureError,
    ThresholdError,
)


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
        put(data, "certificates", [*certificates_of(data), *certificates_of(one)])

    both = rebuilt(signed_by(second), merge)
    assert len(verify(CONTENT, both, replace(POLICY, require_all=True))) == 1
    with pytest.raises(ThresholdError):
        verify(CONTENT, both, replace(POLICY, threshold=2))


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
