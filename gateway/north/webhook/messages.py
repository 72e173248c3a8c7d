"""What a webhook is sent: one JSON object for each result, signed as Standard Webhooks 1.0.0 has it.

- The body is `{"type", "timestamp", "data"}`; `type` is `update.ended`, and `data` says which node, what it was to have, who
  wanted it and how it ended. Fields are added in later releases, never changed.
- `webhook-id` is the same each time that a result is sent, and no other one's: who has it already may let it be.
- `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`; the time is that of
  sending, so that a receiver may refuse what is old.
- The secret is `whsec_` and the base64 of 24 to 64 bytes.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway.database.records import Action, End
from gateway.north.token_file import read_token
from update.errors import ConfigurationError

ENDED: Final = "update.ended"
_PREFIX: Final = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64


def result_of(gateway: str, action: Action, end: End) -> dict[str, object]:
    """The body about an action that has ended."""
    release = action.release
    data = {
        "gateway": gateway,
        "node": action.node,
        "action": action.id,
        "assigner": action.assigner,
        "source": action.source,
        "requested_by": action.requested_by,
        "reason": action.reason,
        "repository": release.repository,
        "path": release.path,
        "sha256": release.sha256,
        "version": release.version,
        "provenance": release.provenance,
        "created": _time(action.created),
        "offered": _time(action.offered),
        "installed": _time(action.installed),
        "outcome": end.outcome,
        "code": end.code,
        "message": end.message,
    }
    return {"type": ENDED, "timestamp": _time(end.at), "data": data}


def encoded(body: Mapping[str, object]) -> bytes:
    """The bytes that are signed and sent."""
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def headers_of(secret: bytes, message: str, at: datetime, body: bytes) -> dict[str, str]:
    """What goes with a body sent at `at`."""
    moment = str(int(at.timestamp()))
    mac = hmac.digest(secret, f"{message}.{moment}.".encode() + body, sha256)
    return {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def read_secret(file: Path) -> bytes:
    """The secret in `file`; read whenever it is needed, so it may be changed. Errors: `ConfigurationError`."""
    text = read_token(file)
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except binascii.Error:
        secret = b""
    if not _LEAST_BYTES <= len(secret) <= _MOST_BYTES:
        raise ConfigurationError(
            f"{file} holds no secret of a webhook: {_PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes"
        )
    return secret


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
