"""Requests that lie on a medium: what the gateway is asked to put on it beside its report.

A request is `{"schema": "fieldrelay-request-1", "asks": ["logs", "inventory"]}`. Nobody signs it, so it can ask for nothing that
changes anything, and it is answered only where the site allows that. The inventory is in every report anyway.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Final

from media.recogniser import REQUEST_SCHEMA, request_of
from media.records import Content, Kind, Verdict
from update.errors import FieldrelayError, ForbiddenError, ProtocolError

MAX_ASKS: Final = 10


class Ask(StrEnum):
    """What a request may ask for."""

    LOGS = "logs"
    INVENTORY = "inventory"


class SiteRequests:
    """Takes requests, where `allowed`."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    async def take(self, data: bytes, name: str, *, writable: bool) -> Content:
        """What becomes of one; the report of its visit answers it."""
        content = Content(kind=Kind.REQUEST, name=name, verdict=Verdict.ACCEPTED)
        try:
            return replace(content, asks=self._asks(data, writable=writable))
        except FieldrelayError as error:
            return replace(content, verdict=Verdict.REFUSED, code=error.code, message=str(error)[:1000])

    def _asks(self, data: bytes, *, writable: bool) -> tuple[str, ...]:
        if not self._allowed:
            raise ForbiddenError("this gateway answers no requests from media; media.requests allows it")
        if not writable:
            raise ForbiddenError("the medium cannot be written here, so nothing can be answered on it; see write_reports")
        request = request_of(data)
        asks = None if request is None else request.get("asks")
        known = tuple(Ask)
        if not isinstance(asks, list) or not 0 < len(asks) <= MAX_ASKS or any(ask not in known for ask in asks):
            raise ProtocolError(f"a request ({REQUEST_SCHEMA}) asks for some of {', '.join(known)}; it holds {str(asks)[:200]}")
        return tuple(dict.fromkeys(map(str, asks)))
