"""Who may push: a pusher shows its token, or signs what it says as Standard Webhooks 1.0.0 has it.

1. Tokens and secrets are read when they are needed, so they may be changed while the gateway runs. Every pusher is compared with,
   in constant time each, so that how long it takes tells nothing about one that is nearly right.
2. A signed message is good for `TOLERANCE_S` around its time, and once: a recorded one that comes again is refused.
3. A node's certificate or token opens nothing here, and a pusher's token nothing of the nodes'.
"""

import base64
import binascii
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

from gateway.north.token_file import read_token
from gateway.north.webhook.messages import read_secret
from gateway.sections.pushers import PusherSection
from update.errors import UnauthorizedError

TOLERANCE_S: Final = 300
_MOST_SEEN: Final = 10_000
_MOST_ID: Final = 256
_BEARER: Final = "Bearer "
_VERSION: Final = "v1,"


class Pushers:
    """All that are configured."""

    def __init__(self, sections: Sequence[PusherSection], now: Callable[[], datetime]) -> None:
        self._sections = tuple(sections)
        self._now = now
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()

    def named(self, name: str) -> PusherSection | None:
        """The pusher of that name, if it is still configured."""
        return next((section for section in self._sections if section.name == name), None)

    def by_token(self, headers: Mapping[str, str]) -> PusherSection:
        """Who shows its token. Errors: `UnauthorizedError`, `ConfigurationError`."""
        shown = headers.get("Authorization", "")
        token = shown.removeprefix(_BEARER).strip().encode() if shown.startswith(_BEARER) else b""
        found: PusherSection | None = None
        for section in self._sections:
            if section.token is not None and hmac.compare_digest(token, read_token(section.token).encode()):
                found = section
        if found is None:
            raise UnauthorizedError("a pusher shows its token: Authorization: Bearer …, as in push.pusher.token")
        return found

    def by_signature(self, headers: Mapping[str, str], body: bytes) -> PusherSection:
        """Who signed (rule 2). Errors: `UnauthorizedError`, `ConfigurationError`."""
        message, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not 0 < len(message) <= _MOST_ID or not moment.isascii() or not moment.isdecimal() or len(moment) > 12:
            raise UnauthorizedError("a signed message has webhook-id, webhook-timestamp and webhook-signature")
        signed = f"{message}.{moment}.".encode() + body
        shown = _signatures(headers.get("webhook-signature", ""))
        found: PusherSection | None = None
        for section in self._sections:
            if section.secret is not None:
                mac = hmac.digest(read_secret(section.secret), signed, sha256)
                if sum(hmac.compare_digest(mac, each) for each in shown):
                    found = section
        if found is None:
            raise UnauthorizedError("the signature is none of a pusher that is configured; compare push.pusher.secret")
        self._check_fresh(found.name, message, int(moment))
        return found

    def _check_fresh(self, name: str, message: str, moment: int) -> None:
        now = self._now().timestamp()
        if abs(now - moment) > TOLERANCE_S:
            raise UnauthorizedError(
                f"the message was signed {abs(now - moment):.0f} s off this gateway's time, {TOLERANCE_S} s are allowed: "
                "sign it when it is sent, and compare the clocks"
            )
        while self._seen and (len(self._seen) >= _MOST_SEEN or next(iter(self._seen.values())) < now - 2 * TOLERANCE_S):
            self._seen.popitem(last=False)
        if (name, message) in self._seen:
            raise UnauthorizedError(f"message {message[:80]!r} has been here already: each is taken once")
        self._seen[name, message] = now


def _signatures(header: str) -> list[bytes]:
    """What the header holds of version 1; several while a secret is changed."""
    found = []
    for each in header.split(" ")[:10]:
        if each.startswith(_VERSION):
            try:
                found.append(base64.b64decode(each.removeprefix(_VERSION), validate=True))
            except binascii.Error:
                continue
    return found
