"""The structure of a CMS signature (RFC 5652), read strictly into plain values; nothing is trusted here.

Accepted is what `openssl cms -sign -binary -outform DER` writes and SWUpdate reads: ContentInfo of type signed-data, content
type data, content absent, signer infos *with* signed attributes; and with `attached` also what RAUC makes, whose content
(the manifest) is inside. Refused, each with a reason:

- more than 256 KiB, 16 signer infos or 32 certificates, before anything is built from them;
- bytes after the structure, attached content where a detached signature is meant, other content types;
- no signed attributes: the signature would cover the content directly, and a signed content that happens to encode
  attributes could be passed off as them (RFC 5652 section 5.4, "Security Considerations" of RFC 8933);
- an attribute twice, or contentType and messageDigest not exactly once with one value (section 5.3);
- a signer's digest that the structure does not list, or fields that nothing here needs and that are malformed all the same:
  OpenSSL, which devices verify with, refuses them;
- digests below SHA-256, an algorithm whose digest is not the stated one, PSS with two different digests.

What is wrong with one signer info is kept beside the good ones: other signers may still suffice.
"""

from dataclasses import dataclass

from asn1crypto import cms, core, parser
from asn1crypto import x509 as names_x509
from cryptography import x509

from update.errors import LimitError, SignatureError
from update.trust.chain import refusing
from update.trust.signers import Algorithm, HashName, Scheme

MAX_SIGNATURE_BYTES = 256 * 1024
MAX_SIGNERS = 16
MAX_CERTIFICATES = 32
_UNIVERSAL_CONSTRUCTED_SET = (0, 1, 17)


@dataclass(frozen=True, slots=True)
class Known:
    """A certificate with the two names by which a signer info may refer to it (issuer as DER)."""

    certificate: x509.Certificate
    issuer: bytes
    serial: int
    key_identifier: bytes | None

    @classmethod
    def of(cls, der: bytes) -> "Known":
        """Read one certificate."""
        certificate = x509.load_der_x509_certificate(der)
        names = names_x509.Certificate.load(der, strict=True)
        if not (names["signature_value"].contents or b"").startswith(b"\0"):
            raise SignatureError("a certificate's signature is no whole number of bytes, which OpenSSL refuses")
        try:
            identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        except x509.ExtensionNotFound:
            identifier = None
        return cls(certificate, names.issuer.dump(), names.serial_number, identifier)


@dataclass(frozen=True, slots=True)
class Claim:
    """One signer info: somebody, named by issuer and serial or by key identifier, claims to have signed `message_digest`."""

    issuer: bytes
    serial: int
    key_identifier: bytes | None
    scheme: Scheme
    message_digest: bytes
    tbs: bytes
    value: bytes

    def names(self, known: Known) -> bool:
        """Whether this claim refers to `known`."""
        if self.key_identifier is not None:
            return self.key_identifier == known.key_identifier
        return (self.issuer, self.serial) == (known.issuer, known.serial)


@dataclass(frozen=True, slots=True)
class Structure:
    """What a signature holds; a signer info that cannot count is present as its refusal. `content` None: detached."""

    certificates: tuple[Known, ...]
    claims: tuple[Claim | SignatureError, ...]
    content: bytes | None = None


def load_signed_data(signature: bytes, *, attached: bool = False) -> cms.SignedData:
    """The outer structure within its limits; `LimitError`, `SignatureError`. `attached`: it may carry its content."""
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise LimitError(f"the signature has {len(signature)} bytes; at most {MAX_SIGNATURE_BYTES} are read")
    with refusing(SignatureError, "malformed CMS signature"):
        outer = cms.ContentInfo.load(signature, strict=True)
        if outer["content_type"].native != "signed_data":
            raise SignatureError(f"the CMS is of type {outer['content_type'].dotted}, not signed-data")
        data = outer["content"]
        inner = data["encap_content_info"]
        if inner["content_type"].native != "data":
            raise SignatureError(f"the CMS signs content of type {inner['content_type'].dotted}, not data")
        if not attached and not isinstance(inner["content"], core.Void):
            raise SignatureError(
                "the CMS carries its own content; a detached signature is needed (openssl cms without -nodetach)"
            )
        _check_counts(data)
        return data


def parse_signature(signature: bytes, *, attached: bool = False) -> Structure:
    """Read a signature; `LimitError` or `SignatureError` if the whole of it is unusable."""
    data = load_signed_data(signature, attached=attached)
    with refusing(SignatureError, "malformed certificate in the CMS signature"):
        certificates = tuple(Known.of(each) for each in _certificate_ders(data))
    with refusing(SignatureError, "malformed CMS signature"):
        _check_listed_digests(data)
        claims = tuple(_claim_or_refusal(info) for info in data["signer_infos"])
        return Structure(certificates, claims, _content(data))


def _check_listed_digests(data: cms.SignedData) -> None:
    _ = data["version"].native  # reading is what finds it malformed
    listed = {algorithm["algorithm"].native for algorithm in data["digest_algorithms"]}
    for info in data["signer_infos"]:
        _ = info.native
        used = info["digest_algorithm"]["algorithm"].native
        if used not in listed:
            raise SignatureError(f"a signer used the digest {used}, the CMS lists {', '.join(sorted(listed)) or 'none'}")


def _content(data: cms.SignedData) -> bytes | None:
    content = data["encap_content_info"]["content"]
    if isinstance(content, core.Void):
        return None
    if not isinstance(content.native, bytes):
        raise SignatureError("the content of the CMS is no string of octets")
    return content.native


def _check_counts(data: cms.SignedData) -> None:
    signers = len(data["signer_infos"])
    certificates = data["certificates"]
    count = 0 if isinstance(certificates, core.Void) else len(certificates)
    if signers > MAX_SIGNERS:
        raise LimitError(f"the CMS has {signers} signer infos; at most {MAX_SIGNERS} are read")
    if count > MAX_CERTIFICATES:
        raise LimitError(f"the CMS has {count} certificates; at most {MAX_CERTIFICATES} are read")
    if signers == 0:
        raise SignatureError("the CMS has no signer")


def _certificate_ders(data: cms.SignedData) -> list[bytes]:
    certificates = data["certificates"]
    if isinstance(certificates, core.Void):
        return []
    for choice in certificates:
        if choice.name != "certificate":
            raise SignatureError(f"the CMS holds a certificate of the kind {choice.name}; only X.509 certificates are read")
    return [choice.chosen.dump() for choice in certificates]


def _claim_or_refusal(info: cms.SignerInfo) -> Claim | SignatureError:
    try:
        with refusing(SignatureError, "malformed signer info"):
            return _parse_claim(info)
    except SignatureError as refusal:
        return refusal


def _parse_claim(info: cms.SignerInfo) -> Claim:
    digest = _hash_name(info["digest_algorithm"]["algorithm"])
    attributes = info["signed_attrs"]
    if isinstance(attributes, core.Void):
        raise SignatureError("the signer info has no signed attributes; sign again without -noattr")
    values = _attribute_values(attributes)
    content_type, message_digest = values.get("content_type"), values.get("message_digest")
    if not isinstance(content_type, core.ObjectIdentifier) or not isinstance(message_digest, core.OctetString):
        raise SignatureError("the signed attributes lack contentType or messageDigest")
    if content_type.native != "data":
        raise SignatureError(f"the signed contentType is {content_type.dotted}, not data")
    issuer, serial, key_identifier = _signer_identifier(info["sid"])
    return Claim(
        issuer=issuer,
        serial=serial,
        key_identifier=key_identifier,
        scheme=_scheme(info, digest),
        message_digest=message_digest.native,
        tbs=_signed_bytes(attributes),
        value=info["signature"].native,
    )


def _hash_name(algorithm: core.ObjectIdentifier) -> HashName:
    if algorithm.native not in list(HashName):
        raise SignatureError(f"the digest {algorithm.native} is not accepted; sign with {', '.join(HashName)}")
    return HashName(algorithm.native)


def _attribute_values(attributes: cms.CMSAttributes) -> dict[str, core.Asn1Value]:
    """Type -> its only value. A type that comes twice is refused, whichever it is, and so is one without or with more values."""
    values: dict[str, core.Asn1Value] = {}
    for attribute in attributes:
        kind = attribute["type"].native
        if kind in values:
            raise SignatureError(f"the signed attribute {kind} is there twice")
        if len(attribute["values"]) != 1:
            raise SignatureError(f"the signed attribute {kind} has {len(attribute['values'])} values instead of one")
        values[kind] = attribute["values"][0]
    return values


def _signer_identifier(identifier: cms.SignerIdentifier) -> tuple[bytes, int, bytes | None]:
    chosen = identifier.chosen
    if isinstance(chosen, core.OctetString):
        return b"", 0, chosen.native
    return chosen["issuer"].dump(), chosen["serial_number"].native, None


def _signed_bytes(attributes: cms.CMSAttributes) -> bytes:
    """The attributes as they were signed: their original bytes under the tag of a SET and a DER length (section 5.4)."""
    return parser.emit(*_UNIVERSAL_CONSTRUCTED_SET, attributes.contents or b"")


def _scheme(info: cms.SignerInfo, digest: HashName) -> Scheme:
    algorithm = info["signature_algorithm"]
    name = algorithm["algorithm"].native
    if name == f"{digest}_ecdsa":
        return Scheme(Algorithm.ECDSA, digest)
    if name in {"rsassa_pkcs1v15", f"{digest}_rsa"}:
        return Scheme(Algorithm.RSA_PKCS1V15, digest)
    if name != "rsassa_pss":
        raise SignatureError(f"the signature algorithm {name} does not fit the digest {digest}, or is not accepted")
    parameters = algorithm["parameters"]
    mask = parameters["mask_gen_algorithm"]
    stated = {parameters["hash_algorithm"]["algorithm"].native, mask["parameters"]["algorithm"].native}
    if stated != {str(digest)} or mask["algorithm"].native != "mgf1":
        raise SignatureError(f"RSA-PSS with {sorted(stated)} under the digest {digest}: all must be the same")
    if parameters["trailer_field"].native != "trailer_field_bc":
        raise SignatureError("RSA-PSS with an unknown trailer field")
    return Scheme(Algorithm.RSA_PSS, digest, _salt_bytes(parameters["salt_length"].native))


def _salt_bytes(length: int) -> int:
    if not 0 <= length <= 1024:
        raise SignatureError(f"RSA-PSS with a salt of {length} bytes")
    return length
