"""The edge between HTTP and the product: requests become checked messages, refusals become status codes.

What goes out is a code, a sentence and nothing else: no stack trace, no path of this machine that the message does not
name itself. What comes in is limited in size before it is read and checked as a whole before anything acts on it.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from update.errors import (
    AmbiguousError,
    AssignerError,
    BundleError,
    BusyError,
    CertificateError,
    FieldrelayError,
    ForbiddenError,
    GoneError,
    HardwareError,
    LockedError,
    NoSpaceError,
    NotFoundError,
    NotProxiedError,
    NotReadyError,
    NotStoredError,
    ProtocolError,
    RangeNotSatisfiableError,
    SlowError,
    StateError,
    TooLargeError,
    TrustError,
    UnauthorizedError,
    UnknownNodeError,
    UnknownTargetError,
    UnreachableError,
    UsageError,
)

MAX_BODY_BYTES = 256 << 10
"""Room for a report with its log lines; stock clients were seen to send 5 kB."""
MAX_HEADER_BYTES = 65536
"""A stock delta client names hundreds of ranges in one header line."""

_RETRY_AFTER_S = "10"
"""After so many seconds it is worth asking again (RFC 9110, section 10.2.3)."""

_LOG = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Message = TypeVar("_Message")

# From the particular to the general: the first class that fits counts.
_STATUS: tuple[tuple[type[FieldrelayError], HTTPStatus], ...] = (
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED),
    (CertificateError, HTTPStatus.FORBIDDEN),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotProxiedError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (NotStoredError, HTTPStatus.NOT_FOUND),
    (UnknownTargetError, HTTPStatus.NOT_FOUND),
    (UnknownNodeError, HTTPStatus.NOT_FOUND),
    (GoneError, HTTPStatus.GONE),
    (LockedError, HTTPStatus.LOCKED),
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (RangeNotSatisfiableError, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    (ProtocolError, HTTPStatus.BAD_REQUEST),
    (NotReadyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (UnreachableError, HTTPStatus.BAD_GATEWAY),
    (SlowError, HTTPStatus.GATEWAY_TIMEOUT),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoSpaceError, HTTPStatus.INSUFFICIENT_STORAGE),
    (StateError, HTTPStatus.CONFLICT),
    (AssignerError, HTTPStatus.CONFLICT),
    (AmbiguousError, HTTPStatus.CONFLICT),
    (HardwareError, HTTPStatus.CONFLICT),
    (TrustError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BundleError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The body of every refusal."""

    code: str
    message: str


_REFUSAL = TypeAdapter(Refusal)


def http_status(error: FieldrelayError) -> HTTPStatus:
    """The status that says the same as the error's class; 500 for what only this machine can mend."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


@web.middleware
async def refuse_by_name(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer every refusal as `{"code", "message"}`; what nobody foresaw is logged here and told as 500 without its story."""
    try:
        return await handler(request)
    except FieldrelayError as error:
        return refusal_of(request, error)
    except web.HTTPRequestEntityTooLarge as error:
        message = f"the body is larger than {MAX_BODY_BYTES} bytes"
        return _refusal(HTTPStatus(error.status), Refusal(TooLargeError.code, message))
    except web.HTTPException as error:
        code = NotFoundError.code if error.status == HTTPStatus.NOT_FOUND else ProtocolError.code
        return _refusal(HTTPStatus(error.status), Refusal(code, f"{request.method} is not answered here: {error.reason}"))
    except Exception:  # noqa: BLE001 - the last edge: a defect must cost one answer, not a story told to a stranger
        _LOG.exception("a request could not be answered: %s %s", request.method, request.rel_url.raw_path)
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, Refusal(FieldrelayError.code, "the gateway failed; see its log"))


def refusal_of(request: web.Request, error: FieldrelayError) -> web.Response:
    """The answer to a request that is refused; logged."""
    level = logging.DEBUG if _is_probe(request, error) else logging.INFO
    _LOG.log(level, "refused %s %s: %s (%s)", request.method, request.rel_url.raw_path, error, error.code)
    return _refusal(http_status(error), Refusal(error.code, str(error)))


def _is_probe(request: web.Request, error: FieldrelayError) -> bool:
    """A TUF client asks for the next root until there is none (specification 5.3.3): that answer is no news."""
    return isinstance(error, NotFoundError) and request.method == "GET" and request.path.endswith(".root.json")


async def read_message(request: web.Request, adapter: TypeAdapter[_Message]) -> _Message:
    """The checked body of a request; `ProtocolError` names what is wrong with it, and where."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("a message is sent without Content-Encoding")
    try:
        return adapter.validate_json(await request.read())
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, detail["loc"]))[:200] or "the body"
        raise ProtocolError(f"{where}: {detail['msg']}") from error


def answer(adapter: TypeAdapter[_Message], message: _Message) -> web.Response:
    """A message as JSON, status 200: stock clients take no other for success."""
    return web.Response(body=adapter.dump_json(message), content_type="application/json")


def _refusal(status: HTTPStatus, refusal: Refusal) -> web.Response:
    headers = {"Retry-After": _RETRY_AFTER_S} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return web.Response(status=status, body=_REFUSAL.dump_json(refusal), content_type="application/json", headers=headers)
