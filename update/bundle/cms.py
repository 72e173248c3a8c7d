"""Who signed a bundle: verification of a CMS signature against pinned roots, with a threshold.

Of a `.swu` it is the detached one of `sw-description`; of a RAUC bundle see `update.bundle.rauc_reader`.

SWUpdate itself accepts a bundle as soon as *one* signer is good and knows no N-of-M; the gateway and the agent count distinct
public keys here, so that one stolen key is not enough where the policy says two. The rules beyond `cms_structure`:

- the message digest is compared with that of the content, in constant time;
- the algorithm must fit the key: RSA from 2048 bits, or ECDSA on P-256, P-384 or P-521;
- the certificate path is judged by `update.trust.chain`, at the time the policy chooses, never at the signing time, which
  anybody with an old stolen key can state as he likes;
- intermediates come from the policy only, as SWUpdate does since 2022.12+dfsg-4+deb12u3 (its CVE-2026-109399); embedded
  ones are used only with `use_embedded_intermediates`;
- the threshold counts keys, not signer infos and not certificates: a key with two certificates signs once.

CMS is malleable: the same signature has many encodings. Never identify a release by the hash of its signature file.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from update.bundle.cms_structure import Claim, Known, Structure, parse_signature
from update.digest import Digest, digest_of
from update.errors import CertificateError, ConfigurationError, SignatureError, ThresholdError, TrustError
from update.trust.chain import MAX_CHAIN_DEPTH, ChainPolicy, common_name, refusing, verify_chain
from update.trust.signers import MIN_RSA_BITS, Algorithm, HashName

_MAX_RSA_BITS = 8192
DigestBy = Callable[[HashName], bytes]
"""The raw digest of what was signed, by the hash that a signer chose."""

_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


@dataclass(frozen=True, slots=True)
class CmsPolicy:
    """What a signature must satisfy; see the module for the rules.

    `purpose` is the extended key usage demanded of signers, None for none; with `purpose_optional` it is demanded only of those
    that have any extended key usage. `signer_names`, if given, are the only common names accepted. `require_all` refuses as soon
    as any signer info is bad. `at` is timezone-aware.
    """

    roots: tuple[x509.Certificate, ...]
    at: datetime
    intermediates: tuple[x509.Certificate, ...] = ()
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING
    threshold: int = 1
    signer_names: tuple[str, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    require_all: bool = False
    use_embedded_intermediates: bool = False
    max_depth: int = MAX_CHAIN_DEPTH
    purpose_optional: bool = False

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise ConfigurationError(f"a signature threshold of {self.threshold} would accept anything; use 1 or more")
        _ = self.chain  # an empty set of roots or a time without zone is refused here, not at the first bundle

    @property
    def chain(self) -> ChainPolicy:
        """The part that judges certificates."""
        return ChainPolicy(
            self.roots, self.at, self.purpose, self.intermediates, self.crls, self.max_depth, self.purpose_optional
        )


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signed: its name is the certificate's common name, `key_id` the SHA-256 of its SubjectPublicKeyInfo."""

    name: str
    key_id: Digest
    certificate: x509.Certificate


def verify(content: bytes, signature: bytes, policy: CmsPolicy) -> tuple[Signer, ...]:
    """The distinct signers of `content` (the whole of `sw-description`), at least `policy.threshold` of them.

    Errors: `LimitError` for a signature that is too large, `SignatureError` for one that is malformed or not over this
    content, `CertificateError` if all signers fail by their certificates, `ThresholdError` for too few good ones.
    """
    return verify_structure(parse_signature(signature), lambda name: hashlib.new(name, content).digest(), policy)


def verify_structure(structure: Structure, digest_by: DigestBy, policy: CmsPolicy) -> tuple[Signer, ...]:
    """The same of a signature that was read, over content whose digests `digest_by` gives (files that do not fit in memory)."""
    known = _known(structure, policy)
    good: dict[Digest, Signer] = {}
    refused: list[TrustError] = []
    for claim in structure.claims:
        try:
            signer = _verify_claim(claim, digest_by, structure, known, policy)
            good.setdefault(signer.key_id, signer)
        except (SignatureError, CertificateError) as refusal:
            refused.append(refusal)
    if refused and (policy.require_all or not good):
        raise _worst(refused)
    if len(good) < policy.threshold:
        reasons = "".join(f"; refused: {refusal}" for refusal in refused)
        raise ThresholdError(
            f"{len(good)} of {policy.threshold} needed keys signed ({', '.join(s.name for s in good.values())}){reasons}"
        )
    return tuple(good.values())


def _known(structure: Structure, policy: CmsPolicy) -> tuple[Known, ...]:
    """Where a signer's certificate is looked for: embedded first, then what the policy trusts."""
    trusted = (*policy.roots, *policy.intermediates)
    return (*structure.certificates, *(Known.of(each.public_bytes(serialization.Encoding.DER)) for each in trusted))


def _verify_claim(
    claim: Claim | SignatureError, digest_by: DigestBy, structure: Structure, known: tuple[Known, ...], policy: CmsPolicy
) -> Signer:
    if isinstance(claim, SignatureError):
        raise claim
    certificate = next((each.certificate for each in known if claim.names(each)), None)
    if certificate is None:
        raise SignatureError("the signer's certificate is neither in the CMS nor trusted; sign again without -nocerts")
    digest = digest_by(claim.scheme.digest)
    if not hmac.compare_digest(claim.message_digest, digest):
        raise SignatureError(f"signed was other content: {claim.message_digest.hex()[:64]}, this is {digest.hex()[:64]}")
    with refusing(SignatureError, "the signature value cannot be checked"):
        _check_value(certificate, claim)
    embedded = [each.certificate for each in structure.certificates] if policy.use_embedded_intermediates else []
    verify_chain(certificate, policy.chain, extra_intermediates=embedded)
    name = common_name(certificate)
    if policy.signer_names and name not in policy.signer_names:
        raise CertificateError(f"the signer {name!r} is not among the accepted {', '.join(policy.signer_names)}")
    return Signer(name, _key_id(certificate), certificate)


def _check_value(certificate: x509.Certificate, claim: Claim) -> None:
    key, scheme = certificate.public_key(), claim.scheme
    try:
        match key:
            case rsa.RSAPublicKey() if scheme.algorithm is not Algorithm.ECDSA:
                _check_rsa_size(key)
                key.verify(claim.value, claim.tbs, scheme.rsa_padding, scheme.digest.algorithm)
            case ec.EllipticCurvePublicKey() if scheme.algorithm is Algorithm.ECDSA and key.curve.name in _CURVES:
                key.verify(claim.value, claim.tbs, ec.ECDSA(scheme.digest.algorithm))
            case _:
                raise SignatureError(f"the algorithm {scheme.algorithm} does not fit the signer's key {type(key).__name__}")
    except InvalidSignature as error:
        raise SignatureError(f"the signature is not by the key of {common_name(certificate)!r}") from error


def _check_rsa_size(key: rsa.RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise SignatureError(f"the signer's RSA key has {key.key_size} bits; {MIN_RSA_BITS} to {_MAX_RSA_BITS} are accepted")


def _key_id(certificate: x509.Certificate) -> Digest:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return digest_of(certificate.public_key().public_bytes(serialization.Encoding.DER, form))


def _worst(refused: list[TrustError]) -> TrustError:
    """One refusal for several signers: by their certificates only if none failed otherwise."""
    kind = CertificateError if all(isinstance(each, CertificateError) for each in refused) else SignatureError
    return refused[0] if len(refused) == 1 else kind("; ".join(str(each) for each in refused))
