"""Refusals of what stands before a server: a proxy that ends TLS there and judges our certificate.

- Such a refusal is not the server's: what it refused is as true tomorrow, and is told again once the certificate is mended.
- nginx answers 400, as HTML, to who shows no certificate or one that it does not trust (`ngx_http_ssl_module`, its codes 495
  and 496); others break the handshake off (`update.wire.http`).
"""

from typing import Final

import aiohttp

from update.errors import EndlessDataError
from update.wire.http import Manner, read_bounded

_CODES: Final = frozenset({400, 495, 496})
_WORDS: Final = b"SSL certificate"
_MAX_BYTES: Final = 64 << 10


async def words_of(response: aiohttp.ClientResponse, manner: Manner) -> bytes:
    """The body of a refusal; nothing of one that is too long to be a refusal. Errors: leaves of `WireError`."""
    try:
        return await read_bounded(response, _MAX_BYTES, manner)
    except EndlessDataError:
        return b""


def refuses_certificate(status: int, words: bytes) -> bool:
    """Whether a refusal is nginx's, of the certificate that it was shown or of none."""
    return status in _CODES and _WORDS in words
