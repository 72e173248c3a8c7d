"""Does a certificate lead to a root we pinned, for this purpose, at this time?

Path validation is RFC 5280 section 6 as the cryptography library does it (path length, unknown critical extensions, key and
signature algorithms), with the rules of a product CA on top:

- anchors are exactly the given roots; intermediates come from the caller, who says which ones are at hand;
- a signer's certificate: the extended key usage must name `purpose`, and must be there unless `purpose_optional`; keyUsage, if
  present, must allow digitalSignature; basicConstraints, if present, must not say CA;
- a CA: basicConstraints CA and keyUsage keyCertSign; an extended key usage, if present, must include the purpose;
- time is chosen by the caller (`at`), and holds for every certificate of the path;
- a revocation list counts if the issuer signed it. Its age does not matter: an old list still revokes, and a missing one
  must not stop a plant that has no network.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store

from update.errors import CertificateError, ConfigurationError, FieldrelayError

MAX_CHAIN_DEPTH = 3
_MAX_ANCHOR_CERTIFICATES = 64


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """What a certificate path must satisfy. `at` is timezone-aware; `purpose` None demands no extended key usage.

    With `purpose_optional` a signer without any extended key usage is fit for all of them, as OpenSSL has it for S/MIME.
    """

    roots: tuple[x509.Certificate, ...]
    at: datetime
    purpose: x509.ObjectIdentifier | None
    intermediates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    max_depth: int = MAX_CHAIN_DEPTH
    purpose_optional: bool = False

    def __post_init__(self) -> None:
        if not self.roots:
            raise ConfigurationError("no trusted root certificate is configured: name at least one")
        if self.at.tzinfo is None:
            raise ConfigurationError(f"the time to judge certificates at needs a time zone: got {self.at.isoformat()}")


def split_anchors(pem: bytes) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """Roots (self-issued) and intermediates of a PEM bundle, such as swupdate's `-k` file; `ConfigurationError` if malformed."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError("the trust bundle holds no readable PEM certificates") from error
    if len(certificates) > _MAX_ANCHOR_CERTIFICATES:
        raise ConfigurationError(f"the trust bundle holds {len(certificates)} certificates, more than {_MAX_ANCHOR_CERTIFICATES}")
    roots = tuple(each for each in certificates if each.subject == each.issuer)
    return roots, tuple(each for each in certificates if each.subject != each.issuer)


def verify_chain(
    leaf: x509.Certificate, policy: ChainPolicy, *, extra_intermediates: Sequence[x509.Certificate] = ()
) -> tuple[x509.Certificate, ...]:
    """The path from `leaf` to a root, both included; `CertificateError` names what is wrong, hostile certificates included."""
    with refusing(CertificateError, "the signer's certificate cannot be used"):
        _check_time(leaf, policy)
        chain = tuple(_build(policy).verify(leaf, [*policy.intermediates, *extra_intermediates]).chain)
        for certificate, issuer in pairwise(chain):
            _check_revocation(certificate, issuer, policy.crls)
        return chain


def common_name(certificate: x509.Certificate) -> str:
    """The subject's one common name; empty if there is none or several."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = names[0].value if len(names) == 1 else ""
    return value if isinstance(value, str) else ""


@contextmanager
def refusing(refusal: type[FieldrelayError], message: str) -> Iterator[None]:
    """Turn whatever a parser of hostile bytes raises into one named refusal; errors of the tree pass unchanged.

    The parsers' own exceptions are no closed set (ValueError, TypeError, KeyError, UnsupportedAlgorithm, InvalidVersion,
    RecursionError, ... were all met), and an unnamed one must not let a bundle stop the process that judges it.
    """
    try:
        yield
    except FieldrelayError:
        raise
    except Exception as error:  # a hostile certificate makes the library raise anything
        raise refusal(f"{message}: {str(error)[:300] or type(error).__name__}") from error


def _build(policy: ChainPolicy) -> "x509.verification.ClientVerifier":
    return (
        PolicyBuilder()
        .store(Store(list(policy.roots)))
        .time(policy.at)
        .max_chain_depth(policy.max_depth)
        .extension_policies(ca_policy=_authority_rules(policy.purpose), ee_policy=_signer_rules(policy))
        .build_client_verifier()
    )


def _signer_rules(chain: ChainPolicy) -> ExtensionPolicy:
    purpose = chain.purpose

    def key_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.digital_signature:
            raise ValueError("keyUsage of the signer lacks digitalSignature")

    def constraints(_policy: Policy, _certificate: x509.Certificate, basic: x509.BasicConstraints | None) -> None:
        if basic is not None and basic.ca:
            raise ValueError("the signer's certificate is a CA's")

    def extended(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
        if usage is not None and purpose not in list(usage):
            raise ValueError(f"extended key usage of the signer lacks the purpose {purpose}")

    rules = (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, key_usage)
        .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, constraints)
    )
    if purpose is None:
        return rules
    if chain.purpose_optional:
        return rules.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, extended)
    return rules.require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, extended)


def _authority_rules(purpose: x509.ObjectIdentifier | None) -> ExtensionPolicy:
    def key_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage) -> None:
        if not usage.key_cert_sign:
            raise ValueError("keyUsage of an issuer lacks keyCertSign")

    def constraints(_policy: Policy, _certificate: x509.Certificate, basic: x509.BasicConstraints) -> None:
        if not basic.ca:
            raise ValueError("an issuer is no CA")

    def extended(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
        if usage is not None and purpose is not None and purpose not in list(usage):
            raise ValueError(f"an issuer is restricted to other purposes than {purpose}")

    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.KeyUsage, Criticality.AGNOSTIC, key_usage)
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, constraints)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, extended)
    )


def _check_time(leaf: x509.Certificate, policy: ChainPolicy) -> None:
    """The path validation checks it too, but cannot say both values."""
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not begin <= policy.at <= end:
        span = f"{begin.isoformat()} to {end.isoformat()}"
        raise CertificateError(
            f"the certificate of {common_name(leaf)!r} is valid from {span}, not at {policy.at.isoformat()}; "
            "check the clock, or have the release signed again"
        )


def _check_revocation(
    certificate: x509.Certificate, issuer: x509.Certificate, crls: tuple[x509.CertificateRevocationList, ...]
) -> None:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raise CertificateError(f"the key of the issuer {common_name(issuer)!r} is of a kind that cannot issue")
    for crl in crls:
        if crl.issuer != issuer.subject or not crl.is_signature_valid(key):
            continue
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise CertificateError(f"the certificate of {common_name(certificate)!r} was revoked by {common_name(issuer)!r}")
