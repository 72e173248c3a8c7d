"""TLS between the gateway and its nodes: what either side demands of the other.

TLS 1.3 only; both ends are certified by the site's CA (`update.wire.authority`). Nodes find gateways by mDNS, whose names and
addresses prove nothing, so a node verifies one identity wherever it connects to: it passes `server_hostname=GATEWAY_IDENTITY`
with every request. The server asks for a client certificate but does not demand one (first contact has none): handlers
decide by `node_of`. A certificate that is shown must be good, or the handshake fails.
"""

import ssl
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from update.errors import CertificateError, ConfigurationError
from update.identity import check_name
from update.trust.chain import common_name, refusing
from update.wire.authority import GATEWAY_IDENTITY

__all__ = ["GATEWAY_IDENTITY", "client_context", "node_of", "server_context"]

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module does not name


def server_context(certificate: Path, key: Path, site_ca: Path) -> ssl.SSLContext:
    """The gateway's side; client certificates are optional, and only the site's CA may have issued them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.num_tickets = 1  # who comes back resumes with the newest; a second one costs as much as the rest of a resumption
    _load_files(context, site_ca, certificate, key)
    return context


def client_context(
    site_ca: Path, *, certificate: Path | None = None, key: Path | None = None, trusted_clock: bool = True
) -> ssl.SSLContext:
    """The node's side: only a gateway of this site's CA. Give `server_hostname=GATEWAY_IDENTITY` with every request.

    `trusted_clock=False` is for a node that booted without a clock: everything but the validity period is still checked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if not trusted_clock:
        context.verify_flags |= _NO_CHECK_TIME
    _load_files(context, site_ca, certificate, key)
    return context


def node_of(ssl_object: ssl.SSLObject | None) -> str | None:
    """The node that holds the other end, by the client certificate that the handshake verified; None without one.

    `CertificateError` for a certificate of our CA that is not a node's.
    For aiohttp: `node_of(request.get_extra_info("ssl_object"))`.
    """
    der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    return _node_in(der) if der else None


@lru_cache(maxsize=4096)
def _node_in(der: bytes) -> str:
    """What a certificate says, which never changes; whether it is good, every handshake finds out."""
    with refusing(CertificateError, "unusable client certificate"):
        certificate = x509.load_der_x509_certificate(der)
        purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        if purposes != [ExtendedKeyUsageOID.CLIENT_AUTH]:
            raise CertificateError("the client certificate is not a node's")
        return check_name(common_name(certificate), "a node")


def _load_files(context: ssl.SSLContext, site_ca: Path, certificate: Path | None, key: Path | None) -> None:
    try:
        context.load_verify_locations(cafile=site_ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"cannot use the TLS files {site_ca}, {certificate}, {key}: {error}") from error
