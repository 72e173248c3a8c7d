"""Make the detached CMS signature of `sw-description`, one signer at a time if need be (N-of-M on several desks).

What is written is what SWUpdate and `openssl cms` read: SignedData (RFC 5652 section 5.1) without content, with signed attributes
contentType and messageDigest, and each signer's own certificate. There is no signing time: nobody may trust it, and without
it the same RSA key signs the same content to the same bytes. Intermediates are not embedded by default: SWUpdate ignores
them; they belong into the node's trust bundle.
"""

import hashlib
from collections.abc import Iterable, Sequence

from asn1crypto import algos, cms, core
from asn1crypto import x509 as names_x509
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from update.bundle.cms_structure import Claim, load_signed_data, parse_signature
from update.errors import SignatureError, StateError, UsageError
from update.trust.chain import common_name, refusing
from update.trust.signers import Algorithm, ReleaseSigner, Scheme


def sign(content: bytes, signers: Sequence[ReleaseSigner], *, extra_certificates: Iterable[x509.Certificate] = ()) -> bytes:
    """DER of a detached signature over `content` by all `signers`; `UsageError` without any, `StateError` for a key twice."""
    if not signers:
        raise UsageError("nothing can be signed without a signer: name at least one key")
    _refuse_doubles([signer.certificate for signer in signers])
    infos = [_signer_info(content, signer) for signer in signers]
    certificates = [signer.certificate for signer in signers]
    return _assemble(infos, [_der(each) for each in (*certificates, *extra_certificates)])


def add_signature(existing: bytes, content: bytes, signer: ReleaseSigner) -> bytes:
    """`existing` with one more signature over the same `content`; the earlier signer infos keep their bytes.

    Errors: `SignatureError` or `LimitError` if `existing` is malformed or over other content; `StateError` if this key
    signed already.
    """
    structure = parse_signature(existing)
    claims = [_over(content, claim) for claim in structure.claims]
    signed_by = [known.certificate for known in structure.certificates if any(claim.names(known) for claim in claims)]
    _refuse_doubles([*signed_by, signer.certificate])
    with refusing(SignatureError, "malformed CMS signature"):
        infos = [*load_signed_data(existing)["signer_infos"], _signer_info(content, signer)]
        certificates = [_der(known.certificate) for known in structure.certificates]
        return _assemble(infos, [*certificates, _der(signer.certificate)])


def _over(content: bytes, claim: Claim | SignatureError) -> Claim:
    if isinstance(claim, SignatureError):
        raise claim
    if claim.message_digest != hashlib.new(claim.scheme.digest, content).digest():
        raise SignatureError("the existing signature is over other content; sign this content from the start")
    return claim


def _refuse_doubles(certificates: Sequence[x509.Certificate]) -> None:
    seen: list[object] = []
    for certificate in certificates:
        key = certificate.public_key()
        if key in seen:
            raise StateError(f"the key of {common_name(certificate)!r} signed already; a second signature would not count")
        seen.append(key)


def _assemble(infos: Sequence[cms.SignerInfo], certificates: Iterable[bytes]) -> bytes:
    digests = {info["digest_algorithm"]["algorithm"].native for info in infos}
    by_key_identifier = any(isinstance(info["sid"].chosen, core.OctetString) for info in infos)
    data = cms.SignedData(
        {
            "version": "v3" if by_key_identifier else "v1",
            "digest_algorithms": [_digest_algorithm(name) for name in sorted(digests)],
            "encap_content_info": {"content_type": "data"},
            "certificates": [names_x509.Certificate.load(der) for der in dict.fromkeys(certificates)],
            "signer_infos": infos,
        }
    )
    return cms.ContentInfo({"content_type": "signed_data", "content": data}).dump()


def _signer_info(content: bytes, signer: ReleaseSigner) -> cms.SignerInfo:
    names = names_x509.Certificate.load(_der(signer.certificate))
    digest = hashlib.new(signer.scheme.digest, content).digest()
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": ["data"]},
            {"type": "message_digest", "values": [digest]},
        ]
    )
    return cms.SignerInfo(
        {
            "version": "v1",
            "sid": {"issuer_and_serial_number": {"issuer": names.issuer, "serial_number": names.serial_number}},
            "digest_algorithm": _digest_algorithm(signer.scheme.digest),
            "signed_attrs": attributes,
            "signature_algorithm": _signature_algorithm(signer.scheme),
            "signature": signer.sign(attributes.dump()),
        }
    )


def _digest_algorithm(name: str) -> algos.DigestAlgorithm:
    return algos.DigestAlgorithm({"algorithm": name})


def _signature_algorithm(scheme: Scheme) -> algos.SignedDigestAlgorithm:
    match scheme.algorithm:
        case Algorithm.ECDSA:
            return algos.SignedDigestAlgorithm({"algorithm": f"{scheme.digest}_ecdsa"})
        case Algorithm.RSA_PKCS1V15:
            return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pkcs1v15"})
        case Algorithm.RSA_PSS:
            parameters = {
                "hash_algorithm": _digest_algorithm(scheme.digest),
                "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": _digest_algorithm(scheme.digest)},
                "salt_length": scheme.salt_bytes,
            }
            return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pss", "parameters": parameters})


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
