"""First contact of a node: the client's side of enrolment over secure transport (EST, RFC 7030).

    GET  /.well-known/est/cacerts        certificates of the site's CA (section 4.1), base64 of certs-only PKCS#7
    POST /.well-known/est/simpleenroll   a PKCS#10 request (section 4.2), HTTP Basic: node id and one-time token

The node trusts the site's CA beforehand (its file, or its fingerprint handed over with the token, section 4.1.1), so the token is
never sent to anybody else: the session's TLS context must be `update.wire.tls.client_context`. The private key stays where
`make_csr` made it.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from update.digest import Digest, digest_of
from update.errors import (
    ConfigurationError,
    PeerIdentityError,
    ProtocolError,
    UnauthorizedError,
    UnreachableError,
)
from update.trust.chain import common_name, refusing
from update.wire.authority import GATEWAY_IDENTITY, read_csr

CACERTS_PATH: Final = "/.well-known/est/cacerts"
ENROLL_PATH: Final = "/.well-known/est/simpleenroll"
REQUEST_TYPE: Final = "application/pkcs10"
RESPONSE_TYPE: Final = "application/pkcs7-mime"
MAX_RESPONSE_BYTES = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=30)


async def enroll(session: aiohttp.ClientSession, base_url: str, node: str, token: str, csr_pem: bytes) -> list[x509.Certificate]:
    """Exchange a one-time token for this node's certificate, which comes first in the list.

    Errors: `UnauthorizedError` for a token that is wrong or used, `PeerIdentityError` for a server that is no gateway of this
    site, `ProtocolError` for a certificate that is not for our key and name, `UnreachableError`.
    """
    body = base64.encodebytes(read_csr(csr_pem).public_bytes(serialization.Encoding.DER))
    headers = {
        "Authorization": aiohttp.encode_basic_auth(node, token),
        "Content-Type": REQUEST_TYPE,
        "Content-Transfer-Encoding": "base64",
    }
    certificates = decode_certificates(await _exchange(session, "POST", base_url.rstrip("/") + ENROLL_PATH, body, headers))
    own = certificates[0]
    if own.public_key() != read_csr(csr_pem).public_key() or common_name(own) != node:
        raise ProtocolError(f"the gateway answered with a certificate for {common_name(own)!r}, not for our key and {node!r}")
    return certificates


async def fetch_authority(session: aiohttp.ClientSession, base_url: str, fingerprint: Digest) -> x509.Certificate:
    """The CA certificate whose DER has the SHA-256 `fingerprint`, from a server not yet trusted.

    The only request for which a session without verification will do; `PeerIdentityError` if no certificate fits.
    """
    certificates = decode_certificates(await _exchange(session, "GET", base_url.rstrip("/") + CACERTS_PATH, None, {}))
    for certificate in certificates:
        if digest_of(certificate.public_bytes(serialization.Encoding.DER)) == fingerprint:
            return certificate
    raise PeerIdentityError(f"{base_url} offers no CA certificate with the fingerprint {fingerprint}")


def encode_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """Base64 of certs-only PKCS#7 (section 4.1.3)."""
    return base64.encodebytes(pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER))


def decode_certificates(body: bytes) -> list[x509.Certificate]:
    """The certificates of a response; `ProtocolError` for anything but at least one."""
    with refusing(ProtocolError, "the gateway's answer is no list of certificates"):
        certificates = pkcs7.load_der_pkcs7_certificates(decode_base64(body))
    if not certificates:
        raise ProtocolError("the gateway's answer holds no certificate")
    return certificates


def decode_base64(body: bytes) -> bytes:
    """Base64 with line breaks and nothing else besides; `ProtocolError`."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("the body is not base64") from error


async def _exchange(session: aiohttp.ClientSession, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    if not url.startswith("https://"):
        raise ConfigurationError(f"enrolment needs https: got {url[:80]!r}")
    try:
        async with session.request(
            method,
            url,
            data=body,
            headers=headers,
            server_hostname=GATEWAY_IDENTITY,
            allow_redirects=False,
            timeout=_TIMEOUT,
        ) as response:
            answer = await _read_limited(response)
            if response.status == 200:
                return answer
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, aiohttp.ServerFingerprintMismatch) as error:
        raise PeerIdentityError(f"{url} is not a gateway of this site") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnreachableError(f"cannot reach {url}; it will be tried again") from error
    refusal = UnauthorizedError if response.status in {401, 403} else ProtocolError
    raise refusal(f"{url} refused with status {response.status}: {_reason(answer)}")


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > MAX_RESPONSE_BYTES:
            raise ProtocolError(f"{response.url} answers with more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _reason(answer: bytes) -> str:
    """Code and message of a refusal `{"code", "message"}`, or the beginning of whatever came instead."""
    try:
        said = json.loads(answer)
        return f"{said['code']}: {said['message']}"[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return repr(answer[:100])
