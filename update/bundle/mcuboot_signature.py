"""Who signed the image of a microcontroller (MCUboot `docs/imgtool.md`).

MCUboot is built for one kind of key: ECDSA on P-256, RSA-PSS with 2048 or 3072 bits, or Ed25519.

The device checks its images itself. Checked here too, a wrong image is refused before the first byte crosses a slow line, and by
name. The signature is of the image's hash; the key is named by the SHA-256 of its public half (PKCS #1 for RSA, else
SubjectPublicKeyInfo), so that an image for another key is told apart from a forged one.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from update.bundle.mcuboot_image import KEY_HASH, McubootImage
from update.errors import ConfigurationError, DeviceImageError, SignatureError

ImageKey = RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

_RSA_2048: Final = 0x20
_ECDSA: Final = 0x22
_RSA_3072: Final = 0x23
_ED25519: Final = 0x24
_SALT_BYTES: Final = 32
_RSA_KINDS: Final = {2048: _RSA_2048, 3072: _RSA_3072}
_SHA256_BYTES: Final = 32


def load_image_key(pem: bytes) -> ImageKey:
    """The public key that a device was built with. `ConfigurationError` for anything that MCUboot does not know."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("the image key is no PEM public key; write one with imgtool getpub -e pem") from error
    match key:
        case Ed25519PublicKey():
            return key
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return key
        case RSAPublicKey() if key.key_size in _RSA_KINDS:
            return key
    raise ConfigurationError("the image key must be ECDSA on P-256, RSA with 2048 or 3072 bits, or Ed25519")


def verify_signature(image: McubootImage, key: ImageKey) -> None:
    """`SignatureError` unless `image` was signed with `key`; `DeviceImageError` for a hash that does not go with the key."""
    named, own = image.records(KEY_HASH), _key_hash(key)
    if named and own not in named:
        raise SignatureError(f"the image was signed with key {named[0].hex()[:16]}, this device takes {own.hex()[:16]}")
    signatures = image.records(_kind(key))
    if not signatures:
        raise SignatureError(f"the image has no signature of the kind of key {own.hex()[:16]}; sign it with imgtool sign -k")
    if len(image.image_hash) != _SHA256_BYTES and not isinstance(key, Ed25519PublicKey):
        raise DeviceImageError(f"the image has a hash of {len(image.image_hash)} bytes; with this key it must be SHA-256")
    if not any(_is_valid(image.image_hash, signature, key) for signature in signatures[:2]):
        raise SignatureError(f"the image's signature is not by key {own.hex()[:16]}, or the image was changed")


def _is_valid(image_hash: bytes, signature: bytes, key: ImageKey) -> bool:
    try:
        match key:
            case RSAPublicKey():
                scheme = padding.PSS(padding.MGF1(SHA256()), _SALT_BYTES)
                key.verify(signature, image_hash, scheme, Prehashed(SHA256()))
            case ec.EllipticCurvePublicKey():
                key.verify(signature, image_hash, ec.ECDSA(Prehashed(SHA256())))
            case Ed25519PublicKey():
                key.verify(signature, image_hash)
    except InvalidSignature:
        return False
    return True


def _kind(key: ImageKey) -> int:
    match key:
        case RSAPublicKey():
            return _RSA_KINDS[key.key_size]
        case ec.EllipticCurvePublicKey():
            return _ECDSA
        case Ed25519PublicKey():
            return _ED25519


def _key_hash(key: ImageKey) -> bytes:
    form = PublicFormat.PKCS1 if isinstance(key, RSAPublicKey) else PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(Encoding.DER, form)).digest()
