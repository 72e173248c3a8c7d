"""Certificate paths: what leads to a pinned root, and what does not."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.builders.keys import CODE_SIGNING, EMAIL_PROTECTION, NOW, Identity, issue, make_pki
from update.errors import CertificateError, ConfigurationError, SignatureError
from update.trust.chain import ChainPolicy, common_name, refusing, split_anchors, verify_chain

PKI = make_pki()
POLICY = ChainPolicy(roots=(PKI.root.certificate,), intermediates=(PKI.intermediate.certificate,), at=NOW, purpose=CODE_SIGNING)


def test_the_path_runs_from_the_leaf_to_the_root() -> None:
    chain = verify_chain(PKI.signers[0].certificate, POLICY)
    assert [common_name(each) for each in chain] == ["signer0", "Product release CA", "Product root CA"]


def under(authority: Identity) -> Identity:
    return issue("leaf", authority, purposes=[CODE_SIGNING])


def test_a_path_longer_than_the_issuer_allows_is_refused() -> None:
    deeper = issue("deeper", PKI.intermediate, authority=True)  # the intermediate has a path length of 0
    with pytest.raises(CertificateError):
        verify_chain(under(deeper).certificate, POLICY, extra_intermediates=[deeper.certificate])


def test_a_path_deeper_than_the_policy_is_refused() -> None:
    above, extra = PKI.root, list[x509.Certificate]()
    for level in range(5):
        above = issue(f"level{level}", above, authority=True)
        extra.append(above.certificate)
    leaf = under(above).certificate
    assert len(verify_chain(leaf, replace(POLICY, max_depth=5), extra_intermediates=extra)) == 7
    with pytest.raises(CertificateError):
        verify_chain(leaf, POLICY, extra_intermediates=extra)


def test_a_leaf_issues_nothing() -> None:
    leaf = under(PKI.signers[1])
    with pytest.raises(CertificateError):
        verify_chain(leaf.certificate, POLICY, extra_intermediates=[PKI.signers[1].certificate])


def test_a_ca_is_no_signer() -> None:
    authority = issue("ca-as-signer", PKI.root, authority=True, digital_signature=True, purposes=[CODE_SIGNING])
    with pytest.raises(CertificateError, match="is a CA's"):
        verify_chain(authority.certificate, POLICY)


def test_a_key_that_may_not_sign_is_refused() -> None:
    silent = issue("silent", PKI.intermediate, purposes=[CODE_SIGNING], digital_signature=False)
    with pytest.raises(CertificateError, match="digitalSignature"):
        verify_chain(silent.certificate, POLICY)


def test_an_unknown_critical_extension_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    for critical in (False, True):
        strange = issue("strange", PKI.intermediate, purposes=[CODE_SIGNING], extensions=[(unknown, critical)])
        if critical:
            with pytest.raises(CertificateError):
                verify_chain(strange.certificate, POLICY)
        else:
            verify_chain(strange.certificate, POLICY)


def test_a_ca_for_another_purpose_issues_no_signers() -> None:
    mail_only = issue("mail-ca", PKI.root, authority=True, purposes=[EMAIL_PROTECTION])
    with pytest.raises(CertificateError):
        verify_chain(under(mail_only).certificate, POLICY, extra_intermediates=[mail_only.certificate])
    fitting = issue("code-ca", PKI.root, authority=True, purposes=[CODE_SIGNING])
    verify_chain(under(fitting).certificate, POLICY, extra_intermediates=[fitting.certificate])


def test_any_purpose_is_not_the_purpose() -> None:
    anything = issue("anything", PKI.intermediate, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    with pytest.raises(CertificateError):
        verify_chain(anything.certificate, POLICY)


def test_a_pinned_self_signed_signer_is_his_own_anchor() -> None:
    alone = issue("alone", None, purposes=[CODE_SIGNING])
    assert verify_chain(alone.certificate, replace(POLICY, roots=(alone.certificate,))) == (alone.certificate,)
    with pytest.raises(CertificateError):
        verify_chain(alone.certificate, POLICY)


def test_a_root_of_the_same_name_with_another_key_is_no_anchor() -> None:
    with pytest.raises(CertificateError):
        verify_chain(PKI.stranger.certificate, POLICY, extra_intermediates=[PKI.stranger_root.certificate])


def test_a_missing_intermediate_is_refused() -> None:
    with pytest.raises(CertificateError):
        verify_chain(PKI.signers[0].certificate, replace(POLICY, intermediates=()))


def test_rsa_authorities_work_too() -> None:
    root = issue("rsa-root", None, authority=True, key=rsa.generate_private_key(65537, 2048))
    assert len(verify_chain(under(root).certificate, replace(POLICY, roots=(root.certificate,)))) == 2


def test_a_trust_bundle_is_split_into_roots_and_intermediates() -> None:
    roots, intermediates = split_anchors(PKI.anchors_pem + PKI.stranger_root.certificate_pem)
    assert roots == (PKI.root.certificate, PKI.stranger_root.certificate)
    assert intermediates == (PKI.intermediate.certificate,)


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_trust_bundle_without_certificates_is_a_configuration_error(pem: bytes) -> None:
    with pytest.raises(ConfigurationError):
        split_anchors(pem)


def test_a_trust_bundle_with_too_many_certificates_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more than 64"):
        split_anchors(PKI.root.certificate_pem * 65)


def test_refusing_names_what_was_unnamed_and_passes_what_has_a_name() -> None:
    with pytest.raises(SignatureError, match=r"judging: '?missing"), refusing(SignatureError, "judging"):
        raise KeyError("missing")
    with pytest.raises(CertificateError), refusing(SignatureError, "judging"):
        raise CertificateError("named")
