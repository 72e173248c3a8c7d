"""Who signs releases: key files today, tokens later, behind one small interface.

Two kinds of signature leave a publisher's desk, often from the same key: CMS over `sw-description` (`ReleaseSigner`, used
by `update.bundle.cms_build`) and TUF metadata (securesystemslib's `Signer`, used by `update.publish.repository`).

A `ReleaseSigner` is asked for a raw signature over bytes and never hands out a key, so a PKCS#11 token fits the same
three attributes (mechanism ECDSA over the digest, then r and s as DER, RFC 5753 section 2.1.1). Ed25519 is fit for TUF but
not for CMS: OpenSSL 3.0, and with it every SWUpdate of that age, can neither make nor check such a signature.

Key files are PKCS#8 PEM, mode 0600, optionally encrypted; a passphrase is asked for only when the file demands one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from securesystemslib.signer import CryptoSigner, SSlibKey

from update.durable import Disk
from update.errors import ConfigurationError, StateError
from update.provided import read_provided

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
Passphrase = Callable[[Path], bytes]

MAX_KEY_FILE_BYTES = 64 * 1024
MIN_RSA_BITS = 2048
_NEW_RSA_BITS = 3072


class KeyKind(StrEnum):
    """Keys that can be made; the first is the one to take (fits CMS, TUF, TLS and tokens)."""

    ECDSA_P256 = "ecdsa-p256"
    RSA_3072 = "rsa-3072"
    ED25519 = "ed25519"


class Algorithm(StrEnum):
    """How a CMS signature value is made from a key."""

    ECDSA = "ecdsa"
    RSA_PKCS1V15 = "rsa-pkcs1v15"
    RSA_PSS = "rsa-pss"


class HashName(StrEnum):
    """The digests accepted in signatures; anything older is refused."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The same digest for the cryptography library."""
        match self:
            case HashName.SHA256:
                return hashes.SHA256()
            case HashName.SHA384:
                return hashes.SHA384()
            case HashName.SHA512:
                return hashes.SHA512()


@dataclass(frozen=True, slots=True)
class Scheme:
    """Algorithm and digest of a signature; `salt_bytes` for RSA-PSS only, whose mask generation uses the same digest."""

    algorithm: Algorithm
    digest: HashName
    salt_bytes: int = 0

    @property
    def rsa_padding(self) -> padding.AsymmetricPadding:
        """The padding of either RSA algorithm."""
        if self.algorithm is Algorithm.RSA_PSS:
            return padding.PSS(padding.MGF1(self.digest.algorithm), self.salt_bytes)
        return padding.PKCS1v15()


class ReleaseSigner(Protocol):
    """One key with its certificate, able to sign bytes (DER `tbs` of signed attributes) according to `scheme`."""

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that goes into the CMS."""
        ...

    @property
    def scheme(self) -> Scheme:
        """What `sign` makes."""
        ...

    def sign(self, tbs: bytes) -> bytes:
        """The signature value over the digest of `tbs`."""
        ...


class FileSigner:
    """A `ReleaseSigner` from a private key in memory.

    Errors: `ConfigurationError` if key and certificate do not belong together or the key does not fit CMS.
    """

    def __init__(self, certificate: x509.Certificate, key: PrivateKey, *, pss: bool = False) -> None:
        if certificate.public_key() != key.public_key():
            raise ConfigurationError(f"the key does not belong to the certificate of {certificate.subject.rfc4514_string()}")
        self._certificate = certificate
        self._key = key
        self._scheme = _scheme_of(key, pss=pss)

    @classmethod
    def from_files(cls, certificate: Path, key: Path, *, passphrase: Passphrase | None = None, pss: bool = False) -> Self:
        """Read PEM files; `pss` chooses RSA-PSS instead of PKCS#1 v1.5 for an RSA key."""
        return cls(read_certificate(certificate), load_private_key(key, passphrase), pss=pss)

    @property
    def certificate(self) -> x509.Certificate:
        """The signer's certificate."""
        return self._certificate

    @property
    def scheme(self) -> Scheme:
        """The scheme that fits the key."""
        return self._scheme

    def sign(self, tbs: bytes) -> bytes:
        """The raw signature value: DER r and s for ECDSA."""
        digest = self._scheme.digest.algorithm
        match self._key:
            case ec.EllipticCurvePrivateKey():
                return self._key.sign(tbs, ec.ECDSA(digest))
            case rsa.RSAPrivateKey():
                return self._key.sign(tbs, self._scheme.rsa_padding, digest)
            case _:
                raise ConfigurationError("an Ed25519 key cannot sign a CMS: use ECDSA P-256")


def create_key(disk: Disk, path: Path, kind: KeyKind = KeyKind.ECDSA_P256, *, passphrase: bytes | None = None) -> PrivateKey:
    """Make a key and keep it durably at `path` with mode 0600; `StateError` if the file exists: keys are never overwritten."""
    if path.exists():
        raise StateError(f"{path} exists: a key is never overwritten; move it away first")
    key = _generate(kind)
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    disk.write_file(path, pem, mode=0o600)
    return key


def load_private_key(path: Path, passphrase: Passphrase | None = None) -> PrivateKey:
    """Read a PEM key; `passphrase(path)` is called only for an encrypted one. `ConfigurationError` says what is wrong."""
    pem = read_provided(path, max_bytes=MAX_KEY_FILE_BYTES)
    try:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:  # the library's way to say "encrypted"
            if passphrase is None:
                raise ConfigurationError(f"the key {path} is encrypted and no passphrase was given") from None
            key = serialization.load_pem_private_key(pem, password=passphrase(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is no private key in PEM form, or the passphrase is wrong") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise ConfigurationError(f"the RSA key {path} has {key.key_size} bits; at least {MIN_RSA_BITS} are needed")
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is a {type(key).__name__}; use ECDSA P-256, RSA or Ed25519")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """Read one PEM certificate; `ConfigurationError` says what is wrong."""
    try:
        return x509.load_pem_x509_certificate(read_provided(path, max_bytes=MAX_KEY_FILE_BYTES))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is no certificate in PEM form") from error


def load_role_signer(path: Path, passphrase: Passphrase | None = None) -> CryptoSigner:
    """A TUF role's signer from a private key file; its `public_key` is what goes into root."""
    return CryptoSigner(load_private_key(path, passphrase))


def load_role_key(path: Path) -> SSlibKey:
    """A TUF role's public key from a PEM file, for the root that trusts somebody else's key."""
    try:
        key = serialization.load_pem_public_key(read_provided(path, max_bytes=MAX_KEY_FILE_BYTES))
        return SSlibKey.from_crypto(key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is no public key in PEM form that TUF can use") from error


def public_pem(key: PrivateKey | PublicKey) -> bytes:
    """The public half as SubjectPublicKeyInfo PEM, to hand to whoever assembles root."""
    public = key.public_key() if isinstance(key, PrivateKey) else key
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _generate(kind: KeyKind) -> PrivateKey:
    match kind:
        case KeyKind.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.RSA_3072:
            return rsa.generate_private_key(public_exponent=65537, key_size=_NEW_RSA_BITS)
        case KeyKind.ED25519:
            return ed25519.Ed25519PrivateKey.generate()


def _scheme_of(key: PrivateKey, *, pss: bool) -> Scheme:
    if isinstance(key, rsa.RSAPrivateKey):
        digest = HashName.SHA256
        return Scheme(Algorithm.RSA_PSS, digest, digest.algorithm.digest_size) if pss else Scheme(Algorithm.RSA_PKCS1V15, digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return Scheme(Algorithm.ECDSA, HashName.SHA384 if key.key_size > 256 else HashName.SHA256)
    raise ConfigurationError("an Ed25519 key cannot sign a CMS (OpenSSL 3.0 refuses it): use ECDSA P-256")
