"""The envelope of an encrypted RAUC bundle: who can open it, and opening it with a recipient's key.

`rauc encrypt` puts the signed manifest, which holds the key of the payload, into CMS EnvelopedData (RFC 5652 section 6) for the
devices; the signature is inside. Without a recipient's key nobody can say who signed such a bundle, nor which hash tree it
pins, so it is refused by that name: a gateway that shall relay encrypted bundles is made one of the recipients. The payload
itself is never decrypted here: its tree is over the ciphertext.

Opened are recipients with RSA keys (PKCS #1 v1.5 key transport) and AES-CBC content, which is what `rauc encrypt` makes for
them. For recipients with elliptic curve keys, which need key agreement, the refusal says so.
"""

from dataclasses import dataclass
from typing import Self, cast

from asn1crypto import cms, core
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from update.errors import ConfigurationError, LimitError, SignatureError, UnsupportedError
from update.trust.chain import refusing

MAX_RECIPIENTS = 1024


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key for which bundles are encrypted, with its certificate."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Self:
        """Read both; `ConfigurationError` for what is no certificate or no unencrypted RSA key, or where they do not fit."""
        try:
            found = x509.load_pem_x509_certificate(certificate)
            loaded = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError("a recipient is a certificate and its unencrypted private key, both in PEM form") from error
        if not isinstance(loaded, rsa.RSAPrivateKey) or loaded.public_key() != found.public_key():
            raise ConfigurationError("a recipient's key must be the RSA key of its certificate; other kinds are not opened here")
        return cls(found, loaded)


def is_envelope(signature: bytes) -> bool:
    """Whether a bundle's CMS is encrypted; `SignatureError` where it is no CMS at all."""
    with refusing(SignatureError, "malformed CMS signature"):
        return str(cms.ContentInfo.load(signature, strict=True)["content_type"].native) == "enveloped_data"


def open_envelope(envelope: bytes, recipient: Recipient | None) -> bytes:
    """The signed CMS inside, which is smaller than the envelope.

    Errors: `UnsupportedError` without the right key, `SignatureError` for what does not decrypt.
    """
    with refusing(SignatureError, "malformed CMS envelope"):
        serials = _recipients(envelope)
    if recipient is None:
        raise UnsupportedError(
            f"the bundle is encrypted for {len(serials)} recipients and its signature is inside, so nobody here can verify it; "
            "encrypt it for the gateway too and give it that key, or deliver it unencrypted"
        )
    wanted = recipient.certificate.serial_number
    if wanted not in serials:
        raise UnsupportedError(f"the bundle is encrypted for others: {_shown(serials)}; the key given here has serial {wanted:x}")
    with refusing(SignatureError, "the envelope does not open with the recipient's key"):
        return pkcs7.pkcs7_decrypt_der(envelope, recipient.certificate, recipient.key, [])


def _recipients(envelope: bytes) -> tuple[int, ...]:
    """Serial numbers of the certificates that the content key was transported to."""
    # The class of the content follows from its type, which `is_envelope` looked at.
    data = cast("cms.EnvelopedData", cms.ContentInfo.load(envelope, strict=True)["content"])
    infos = data["recipient_infos"]
    if len(infos) > MAX_RECIPIENTS:
        raise LimitError(f"the envelope names {len(infos)} recipients; at most {MAX_RECIPIENTS} are read")
    serials = [_serial(info) for info in infos]
    return tuple(serial for serial in serials if serial is not None)


def _serial(info: cms.RecipientInfo) -> int | None:
    if info.name != "ktri":
        return None
    chosen = info.chosen["rid"].chosen
    return None if isinstance(chosen, core.OctetString) else int(chosen["serial_number"].native)


def _shown(serials: tuple[int, ...]) -> str:
    shown = ", ".join(f"serial {serial:x}" for serial in serials[:8])
    return shown or "none with an RSA key, and other kinds are not opened here"
