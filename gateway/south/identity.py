"""Who is who on the south side: the site's CA, the gateway's own certificate, and the node behind a request.

A node is the common name of the client certificate that the TLS handshake verified, never an address or a header.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.config import GatewayConfig, StateFolder
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import CertificateError
from update.wire.authority import SiteAuthority, ensure_gateway_certificate
from update.wire.tls import node_of


@dataclass(frozen=True, slots=True)
class Identity:
    """A node, and the SHA-256 of the certificate (DER) that it showed; the certificate itself is empty where it has a token."""

    node: str
    fingerprint: Digest
    certificate: bytes = b""


Identify = Callable[[web.Request], Identity | None]
IDENTITY = web.RequestKey("identity", Identity)
"""The node behind a request of a resource that is not open to all."""


def by_certificate(request: web.Request) -> Identity | None:
    """The node that holds the other end; None without a certificate. `CertificateError` for one that is not a node's."""
    return identity_of(request.get_extra_info("ssl_object"))


def identity_of(connection: ssl.SSLObject | None) -> Identity | None:
    """Like `by_certificate`, of a connection."""
    node = node_of(connection)
    if node is None or connection is None:
        return None
    certificate = connection.getpeercert(binary_form=True) or b""
    return Identity(node, digest_of(certificate), certificate)


def is_node(transport: asyncio.Transport) -> bool:
    """Whether a node holds the other end of a TLS connection."""
    try:
        return identity_of(transport.get_extra_info("ssl_object")) is not None
    except CertificateError:
        return False


def site_authority(disk: Disk, folder: StateFolder, site: str, now: datetime) -> SiteAuthority:
    """The site's CA, made at the first time."""
    certificate, key = folder.authority
    if certificate.exists():
        return SiteAuthority.load(certificate, key)
    return SiteAuthority.create(disk, certificate, key, site=site, now=now)


def fingerprint_of(authority: SiteAuthority) -> Digest:
    """SHA-256 of the CA certificate (DER): what people compare."""
    return digest_of(authority.certificate.public_bytes(Encoding.DER))


def renew_certificate(disk: Disk, folder: StateFolder, authority: SiteAuthority, config: GatewayConfig, now: datetime) -> bool:
    """Have a server certificate that is in time and for the configured names; True if a new one was issued."""
    certificate, key = folder.server
    hosts = config.south.hosts
    return ensure_gateway_certificate(disk, authority, certificate, key, gateway=config.gateway.name, hosts=hosts, now=now)
