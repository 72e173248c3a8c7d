"""A public key infrastructure for tests: product CA, release CA, and signers of every kind, good and bad.

    pki = make_pki()                    # one per process: generating keys is slow
    pki.root, pki.intermediate          # Identity(certificate, key); trust anchors are [root] + [intermediate]
    pki.signers[0..2]                   # EC P-256, codeSigning, issued by the intermediate; three distinct keys
    pki.rsa                             # RSA-3072, codeSigning
    pki.email                           # EC P-256, emailProtection (the default purpose of swupdate)
    pki.expired, pki.future             # codeSigning, outside their validity now
    pki.stranger, pki.stranger_root     # another CA with the same names
    files = pki.write(tmp_path)         # the same as PEM files for real tools: files.anchors, files.certificate("signer0"), ...
    issue("name", pki.root, purposes=[...], ...)   # anything else

Validity is fixed (2024 to 2044), so `NOW` judges the same in ten years; real tools judge by the real clock.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
END = datetime(2044, 1, 1, tzinfo=UTC)
CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
EMAIL_PROTECTION = ExtendedKeyUsageOID.EMAIL_PROTECTION

_serials = itertools.count(1000)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    name: str
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return private_pem(self.key)


@dataclass(frozen=True, slots=True)
class PkiFiles:
    """PEM files of a Pki in one folder: `anchors` is root and intermediate in one file, as swupdate's `-k` wants it."""

    folder: Path
    root: Path
    anchors: Path

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


@dataclass(frozen=True, slots=True)
class Pki:
    """See the module's docstring."""

    root: Identity
    intermediate: Identity
    signers: tuple[Identity, ...]
    rsa: Identity
    email: Identity
    expired: Identity
    future: Identity
    stranger_root: Identity
    stranger: Identity

    @property
    def anchors_pem(self) -> bytes:
        return self.root.certificate_pem + self.intermediate.certificate_pem

    def write(self, folder: Path) -> PkiFiles:
        """Write NAME.pem and NAME.key of every identity, and `anchors.pem`, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        files = PkiFiles(folder, folder / "root.pem", folder / "anchors.pem")
        files.anchors.write_bytes(self.anchors_pem)
        single = (
            self.root,
            self.intermediate,
            self.rsa,
            self.email,
            self.expired,
            self.future,
            self.stranger_root,
            self.stranger,
        )
        for identity in (*single, *self.signers):
            files.certificate(identity.name).write_bytes(identity.certificate_pem)
            files.key(identity.name).write_bytes(identity.key_pem)
        return files


def private_pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def issue(
    name: str,
    issuer: Identity | None,
    *,
    key: PrivateKey | None = None,
    common_name: str | None = None,
    purposes: Sequence[ObjectIdentifier] = (),
    authority: bool = False,
    path_length: int | None = None,
    digital_signature: bool | None = None,
    begin: datetime = BEGIN,
    end: datetime = END,
    serial: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Identity:
    """Issue a certificate (self-signed without `issuer`); `name` names its files and, without `common_name`, its subject."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or name)])
    above = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(public)
        .serial_number(serial or next(_serials))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(
            _key_usage(authority=authority, digital_signature=not authority if digital_signature is None else digital_signature),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = None if isinstance(above, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(name, builder.sign(above, algorithm), key)


def _key_usage(*, authority: bool, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=not digital_signature and not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


@functools.cache
def make_pki() -> Pki:
    """The infrastructure of this process; read-only."""
    root = issue("root", None, common_name="Product root CA", authority=True)
    intermediate = issue("intermediate", root, common_name="Product release CA", authority=True, path_length=0)
    stranger_root = issue("stranger-root", None, common_name="Product root CA", authority=True)
    code = [CODE_SIGNING]
    return Pki(
        root=root,
        intermediate=intermediate,
        signers=tuple(issue(f"signer{number}", intermediate, purposes=code) for number in range(3)),
        rsa=issue("rsa", intermediate, purposes=code, key=rsa.generate_private_key(65537, 3072)),
        email=issue("email", intermediate, purposes=[EMAIL_PROTECTION]),
        expired=issue("expired", intermediate, purposes=code, end=datetime(2025, 1, 1, tzinfo=UTC)),
        future=issue("future", intermediate, purposes=code, begin=datetime(2043, 1, 1, tzinfo=UTC)),
        stranger_root=stranger_root,
        stranger=issue("stranger", stranger_root, purposes=code),
    )
