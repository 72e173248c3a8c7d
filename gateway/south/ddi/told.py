"""What a node sends: messages in JSON or CBOR, read within their limits, and what a feedback says.

SWUpdate 2022.12 writes the lines of its log into the JSON of a feedback as they are (`server_create_details`): with the control
characters of a script's colours, with what is no UTF-8, 48 lines of up to 2047 bytes. A result would be lost with such a line,
so control characters are read as spaces (outside of texts they are that already, or forbidden), and broken UTF-8 as U+FFFD.
"""

import re
import uuid
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from gateway.database.records import ClientKind
from gateway.fleet.hearing import heard
from gateway.fleet.judgement import Told
from gateway.south.ddi import cbor
from gateway.south.identity import IDENTITY, Identity
from update.digest import digest_of
from update.errors import ForbiddenError, ProtocolError, SignatureError, TooLargeError
from update.wire import ddi
from update.wire.boot_proof import BootProof

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.%]{2,60}\](:[0-9]{1,5})?", re.ASCII)
_SAME_WORDS = uuid.UUID("0b4d8c36-7a55-5f0e-8f1b-8a9a6f3d2c11")
_SPACES = bytes(max(byte, 0x20) for byte in range(256))
_KINDS = (("libcurl-agent/", ClientKind.SWUPDATE), ("rauc-hawkbit-c-agent/", ClientKind.RAUC))
_Message = TypeVar("_Message", bound=BaseModel)


def own(request: web.Request) -> Identity:
    """The node behind a request, which may ask for its own resources only: `ForbiddenError`."""
    identity, asked = request[IDENTITY], request.match_info["node"]
    if asked != identity.node:
        raise ForbiddenError(f"node {identity.node} may not ask for what belongs to {asked[:80]!r}")
    return identity


def action_in(request: web.Request) -> int:
    """The action that a path names; `ProtocolError` for no action id."""
    return ddi.parse_action_id(request.match_info["action"])


def kind_of(request: web.Request) -> ClientKind:
    """A default for a node that is new, by the programs that stock clients say to be."""
    agent = request.headers.get("User-Agent", "")
    return next((kind for prefix, kind in _KINDS if agent.startswith(prefix)), ClientKind.AGENT)


def origin_of(request: web.Request) -> str:
    """Scheme and host as the node addressed us: links lead back to where it asked."""
    if not _HOST.fullmatch(request.host):
        raise ProtocolError(f"the Host header is malformed: {request.host[:80]!r}")
    return f"{request.scheme}://{request.host}"


async def read(request: web.Request, model: type[_Message], max_bytes: int) -> _Message:
    """The message of a request. Errors: `TooLargeError`, `ProtocolError`."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("a message is sent without Content-Encoding")
    body = await request.read()
    if len(body) > max_bytes:
        raise TooLargeError(f"a message of {len(body)} bytes; at most {max_bytes} are taken here")
    if request.content_type == cbor.CONTENT_TYPE:
        body = cbor.to_json(body)
    else:
        body = body.translate(_SPACES).decode(errors="replace").encode()
    return ddi.decode(model, body, max_bytes=8 * max_bytes)  # was limited before, and may be wider now


def answer(request: web.Request, message: BaseModel) -> web.Response:
    """A message as JSON, or as CBOR for who takes only that; status 200: stock clients take no other for success."""
    body = ddi.encode(message)
    taken = request.headers.get("Accept", "")
    if cbor.CONTENT_TYPE in taken and "json" not in taken and "*/*" not in taken:
        return web.Response(body=cbor.from_json(body), content_type=cbor.CONTENT_TYPE)
    return web.Response(body=body, content_type="application/json")


async def feedback(request: web.Request) -> Told:
    """What a feedback says."""
    message = await read(request, ddi.Feedback, ddi.MAX_FEEDBACK_BYTES)
    status, ours = message.status, message.fieldrelay
    details = tuple(status.details or ())
    if ours is None:  # another client: the same words about the same action are the same report
        report = uuid.uuid5(_SAME_WORDS, f"{request.path} {digest_of(await request.read())}")
        return Told(str(report), status.execution, status.result.finished, details=details)
    return heard(status, ours, proven=_is_proven(request[IDENTITY], action_in(request), ours))


def _is_proven(identity: Identity, action: int, ours: ddi.Report) -> bool:
    """Whether the node's own key vouches for what it says to run, in this action."""
    proof = BootProof(identity.node, action, ours.fence, ours.version, ours.slot, ours.slot_sha256, ours.boot_id)
    try:
        proof.verify(ours.proof, identity.certificate)
    except SignatureError:
        return False
    return True
