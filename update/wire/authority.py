"""The site's certificate authority: TLS identities of gateways and nodes, and the signing requests for them.

The CA is made by `fieldrelay gateway init`, lives on the gateway and signs nothing but TLS identities; no software is
trusted because of it. Two kinds of certificate, kept apart by the extended key usage (RFC 5280 section 4.2.1.12):

- a *gateway*: serverAuth only. Its names are the common identity `GATEWAY_IDENTITY`, which is all that nodes verify (nodes
  find gateways by mDNS, whose names and addresses prove nothing), `NAME.gateway.fieldrelay.internal` to tell several apart,
  and host names and addresses for browsers. Nodes pass `server_hostname=GATEWAY_IDENTITY` with every request.
- a *node*: clientAuth only, the common name is the node's id, no other names. It cannot serve, so a stolen node never
  becomes a gateway; what a signing request asks for besides its key and its name is ignored.
"""

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from update.durable import Disk
from update.errors import CertificateError, ConfigurationError, LimitError, StateError
from update.identity import check_name
from update.trust.chain import refusing
from update.trust.signers import MIN_RSA_BITS, PrivateKey, PublicKey, create_key, load_private_key, read_certificate

DOMAIN = "fieldrelay.internal"
GATEWAY_IDENTITY = f"gateway.{DOMAIN}"
MAX_CSR_BYTES = 16 * 1024
AUTHORITY_LIFE = timedelta(days=25 * 365)
GATEWAY_LIFE = timedelta(days=365)
NODE_LIFE = timedelta(days=2 * 365)
_CLOCK_TOLERANCE = timedelta(days=1)
_MAX_RSA_BITS = 4096
_CURVES = frozenset({"secp256r1", "secp384r1"})
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII | re.IGNORECASE)


class SiteAuthority:
    """The site's CA with its private key; only the gateway holds one."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        if certificate.public_key() != key.public_key():
            raise ConfigurationError("the key of the site's CA does not belong to its certificate")
        if isinstance(key, ed25519.Ed25519PrivateKey):
            raise ConfigurationError("the site's CA needs an ECDSA or RSA key: the TLS of many devices lacks Ed25519")
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, disk: Disk, certificate: Path, key: Path, *, site: str, now: datetime) -> Self:
        """Make the CA of `site`; `StateError` if its certificate exists. A key left by an interrupted attempt is used."""
        if certificate.exists():
            raise StateError(f"{certificate} exists: this site has its CA already")
        private = ensure_key(disk, key)
        name = _name(check_name(site, "a site"), organization="Fieldrelay site")
        public = private.public_key()
        builder = _certificate(name, name, key=public, issuer_key=public, now=now, end=now + AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = cls(builder.add_extension(_key_usage(authority=True), critical=True).sign(private, hashes.SHA256()), private)
        write_certificate(disk, certificate, made.certificate)
        return made

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """Read a CA made by `create`."""
        return cls(read_certificate(certificate), load_private_key(key))

    def issue_gateway(self, key: PublicKey, *, gateway: str, hosts: Iterable[str] = (), now: datetime) -> x509.Certificate:
        """A server certificate for the gateway called `gateway`, reachable as `hosts` (names or addresses)."""
        names = x509.SubjectAlternativeName(_gateway_names(gateway, hosts))
        return self._issue(gateway, key, purpose=ExtendedKeyUsageOID.SERVER_AUTH, now=now, life=GATEWAY_LIFE, names=names)

    def check_request(self, csr: bytes, *, node: str) -> PublicKey:
        """The key of a PKCS#10 request (PEM or DER) whose common name is `node`.

        Errors: `CertificateError` for a malformed request, one for another name, one not signed by its own key, or a weak key;
        `LimitError`; `ConfigurationError` for a name that no node may have.
        """
        request = read_csr(csr)
        with refusing(CertificateError, "malformed signing request"):
            names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        asked = names[0].value if len(names) == 1 else None
        if asked != _node_name(node):
            raise CertificateError(f"the signing request is for {str(asked)[:80]!r}, the node is {node!r}")
        return _fit_key(request)

    def issue_node(self, csr: bytes, *, node: str, now: datetime) -> x509.Certificate:
        """A client certificate for the key of a request; errors as `check_request`."""
        key = self.check_request(csr, node=node)
        return self._issue(node, key, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, now=now, life=NODE_LIFE)

    def _issue(
        self,
        name: str,
        key: PublicKey,
        *,
        purpose: ObjectIdentifier,
        now: datetime,
        life: timedelta,
        names: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        end = min(now + life, self.certificate.not_valid_after_utc)
        issuer, above = self.certificate.subject, self._key.public_key()
        builder = _certificate(_name(name), issuer, key=key, issuer_key=above, now=now, end=end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def ensure_key(disk: Disk, path: Path) -> PrivateKey:
    """The key at `path` (mode 0600), made if it is not there."""
    return load_private_key(path) if path.exists() else create_key(disk, path)


def write_certificate(disk: Disk, path: Path, certificate: x509.Certificate) -> None:
    """Keep a certificate durably as PEM."""
    disk.write_file(path, certificate.public_bytes(serialization.Encoding.PEM))


def ensure_gateway_certificate(
    disk: Disk, authority: SiteAuthority, certificate: Path, key: Path, *, gateway: str, hosts: Iterable[str], now: datetime
) -> bool:
    """Issue the gateway's own certificate if it is missing, due, or for other names; True if a new one was written."""
    private, hosts = ensure_key(disk, key), tuple(hosts)
    if certificate.exists():
        held = read_certificate(certificate)
        names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fits = list(names) == _gateway_names(gateway, hosts) and held.public_key() == private.public_key()
        if fits and held.issuer == authority.certificate.subject and not needs_renewal(held, now):
            return False
    write_certificate(disk, certificate, authority.issue_gateway(private.public_key(), gateway=gateway, hosts=hosts, now=now))
    return True


def make_csr(disk: Disk, key: Path, node: str) -> bytes:
    """A signing request (PKCS#10, PEM) for `node`, with the key at `key`, made if it is not there and never leaving it."""
    private = ensure_key(disk, key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(_node_name(node)))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_csr(csr: bytes) -> x509.CertificateSigningRequest:
    """Parse a PKCS#10 request, PEM or DER, and check that its key signed it; `LimitError`, `CertificateError`."""
    if len(csr) > MAX_CSR_BYTES:
        raise LimitError(f"the signing request has {len(csr)} bytes; at most {MAX_CSR_BYTES} are read")
    with refusing(CertificateError, "malformed signing request"):
        pem = csr.lstrip().startswith(b"-----BEGIN")
        request = x509.load_pem_x509_csr(csr) if pem else x509.load_der_x509_csr(csr)
        if not request.is_signature_valid:
            raise CertificateError("the signing request is not signed by its own key")
        return request


def needs_renewal(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether less than a third of a certificate's life is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) / 3


def _node_name(node: str) -> str:
    if f".{check_name(node, 'a node').lower()}".endswith(f".{DOMAIN}"):
        raise ConfigurationError(f"a node cannot be called {node!r}: names in {DOMAIN} are gateways'")
    return node


def _gateway_names(gateway: str, hosts: Iterable[str]) -> list[x509.GeneralName]:
    own = f"{check_name(gateway, 'a gateway')}.{GATEWAY_IDENTITY}"
    return [x509.DNSName(GATEWAY_IDENTITY), _host_name(own), *(_host_name(host) for host in hosts)]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f"not a host name or address: {host[:80]!r}") from None
        return x509.DNSName(host.lower())


def _fit_key(request: x509.CertificateSigningRequest) -> PublicKey:
    with refusing(CertificateError, "the key of the signing request cannot be used"):
        key = request.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return key
    wanted = f"ECDSA P-256 or P-384, or RSA of {MIN_RSA_BITS} to {_MAX_RSA_BITS} bits"
    raise CertificateError(f"the key of the signing request is a {type(key).__name__} that is not accepted; use {wanted}")


def _name(common: str, *, organization: str = "") -> x509.Name:
    above = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*above, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, *, key: PublicKey, issuer_key: PublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
