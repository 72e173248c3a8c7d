"""First contact of a node, the gateway's side: EST's `cacerts` and `simpleenroll` (RFC 7030) with a one-time token.

    GET  /.well-known/est/cacerts        the site's CA, for anybody: it is public
    POST /.well-known/est/simpleenroll   base64 of PKCS#10, HTTP Basic with node id and token -> base64 of certs-only PKCS#7

The rules:

- only over TLS: a token sent in the clear is refused before it is looked at;
- the signing request is judged completely before the token is redeemed, so that a malformed request costs no token;
- redeeming is one atomic step of the store: of two requests with one token, one gets a certificate;
- a token that was redeemed is gone even if the answer is lost on its way: the operator issues another;
- whether the node or the token was wrong is not told.

Refusals are JSON `{"code", "message"}` with the code of `update.errors`.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Protocol

from aiohttp import hdrs, web
from cryptography import x509

from update.errors import CertificateError, ConfigurationError, FieldrelayError, LimitError, ProtocolError, UnauthorizedError
from update.identity import check_name
from update.wire.est import (
    CACERTS_PATH,
    ENROLL_PATH,
    REQUEST_TYPE,
    RESPONSE_TYPE,
    decode_base64,
    encode_certificates,
)

MAX_BODY_BYTES = 24 * 1024
_MAX_CREDENTIAL_CHARACTERS = 1024
_STATUS = {
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    LimitError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CertificateError: HTTPStatus.BAD_REQUEST,
    ConfigurationError: HTTPStatus.BAD_REQUEST,
    ProtocolError: HTTPStatus.BAD_REQUEST,
}

_log = logging.getLogger(__name__)


class TokenStore(Protocol):
    """Where one-time tokens are kept (hashed)."""

    async def redeem(self, node: str, token: str) -> bool:
        """Consume the token of `node`, atomically and durably; False if it is wrong, used or expired.

        The comparison must take constant time.
        """
        ...


class Issuer(Protocol):
    """What signs node certificates: `update.wire.authority.SiteAuthority`."""

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        ...

    def check_request(self, csr: bytes, *, node: str) -> object:
        """Refuse what `issue_node` would refuse."""
        ...

    def issue_node(self, csr: bytes, *, node: str, now: datetime) -> x509.Certificate:
        """A certificate for the request, or a named refusal."""
        ...


class Enrollment:
    """The two resources; `routes()` go into the gateway's application."""

    def __init__(self, tokens: TokenStore, issuer: Issuer, now: Callable[[], datetime]) -> None:
        self._tokens = tokens
        self._issuer = issuer
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Route definitions for `UrlDispatcher.add_routes`."""
        return [web.get(CACERTS_PATH, self.cacerts), web.post(ENROLL_PATH, self.simpleenroll)]

    async def cacerts(self, _request: web.Request) -> web.Response:
        """The site's CA certificate."""
        return _answer([self._issuer.certificate])

    async def simpleenroll(self, request: web.Request) -> web.Response:
        """A certificate for the node that shows its token."""
        try:
            certificate = await self._enroll(request)
        except FieldrelayError as refusal:
            _log.warning("enrolment refused for %s: %s: %s", request.remote, refusal.code, refusal)
            return _refusal(refusal)
        return _answer([certificate, self._issuer.certificate])

    async def _enroll(self, request: web.Request) -> x509.Certificate:
        if request.get_extra_info("ssl_object") is None:
            raise UnauthorizedError("enrolment needs TLS: a token in the clear is a token lost")
        node, token = _credential(request)
        csr = await _signing_request(request)
        self._issuer.check_request(csr, node=node)
        if not await self._tokens.redeem(node, token):
            raise UnauthorizedError("the node or its token is unknown, or the token was used; ask the operator for a new one")
        certificate = self._issuer.issue_node(csr, node=node, now=self._now())
        _log.info("enrolled node %s, certificate %x", node, certificate.serial_number)
        return certificate


def _credential(request: web.Request) -> tuple[str, str]:
    """Node id and token from HTTP Basic (RFC 7617)."""
    scheme, _, encoded = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _MAX_CREDENTIAL_CHARACTERS:
        raise UnauthorizedError("enrolment needs HTTP Basic with the node's id and its one-time token")
    try:
        node, separator, token = base64.b64decode(encoded, validate=True).decode().partition(":")
        check_name(node, "a node")
    except (binascii.Error, ValueError, ConfigurationError) as error:
        raise UnauthorizedError("the credential is not base64 of 'node:token'") from error
    if not separator or not token:
        raise UnauthorizedError("the credential lacks a token")
    return node, token


async def _signing_request(request: web.Request) -> bytes:
    if request.content_type != REQUEST_TYPE:
        raise ProtocolError(f"the body is {request.content_type}, it must be {REQUEST_TYPE}")
    body = bytearray()
    async for block in request.content.iter_any():
        body += block
        if len(body) > MAX_BODY_BYTES:
            raise LimitError(f"the signing request has more than {MAX_BODY_BYTES} bytes")
    return decode_base64(bytes(body))


def _answer(certificates: Sequence[x509.Certificate]) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: f"{RESPONSE_TYPE}; smime-type=certs-only", hdrs.CONTENT_TRANSFER_ENCODING: "base64"}
    return web.Response(body=encode_certificates(certificates), headers=headers)


def _refusal(refusal: FieldrelayError) -> web.Response:
    status = _STATUS.get(type(refusal), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {hdrs.WWW_AUTHENTICATE: 'Basic realm="fieldrelay enrolment"'} if status is HTTPStatus.UNAUTHORIZED else {}
    return web.json_response({"code": refusal.code, "message": str(refusal)}, status=status, headers=headers)
