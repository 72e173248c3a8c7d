"""The pusher's side of `/push/v1/`: uploads by tus 1.0.0 that go on where they were cut off, and the verdict.

1. A file goes in parts, each with its SHA-256: what the gateway says that it has is on its disk and is what was sent.
2. Whatever breaks (connection, gateway, somebody else at the same file), the offset is asked for and the rest is sent, until
   nothing came further for `attempts` times in a row; then the last failure is raised.
3. Parts grow while they are quick and shrink while they are slow, so that a slow line does not time out.
"""

import asyncio
import base64
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import aiohttp
from pydantic import ValidationError

from update.digest import Digest
from update.errors import (
    ChecksumError,
    EndlessDataError,
    FieldrelayError,
    ForbiddenError,
    GoneError,
    LockedError,
    NoSpaceError,
    NotFoundError,
    ProtocolError,
    SlowError,
    StateError,
    StoreError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
    WireError,
)
from update.wire.http import Manner, exchange, read_bounded
from update.wire.push_messages import (
    BEGIN,
    SESSION,
    TUS_VERSION,
    UPLOAD_TYPE,
    VERDICT,
    Arriving,
    Begin,
    Session,
    Verdict,
)
from update.wire.rate import Retry

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_MOST_BYTES: Final = 4 << 20
_MOST_DIGITS: Final = 18
_SMALLEST_BYTES: Final = 256 << 10
_LARGEST_BYTES: Final = 16 << 20
_QUICK_S: Final = 2.0
_SLOW_S: Final = 20.0
_CHECKSUM_MISMATCH: Final = 460
_TUS: Final = MappingProxyType({"Tus-Resumable": TUS_VERSION})
_JSON: Final = MappingProxyType({"Content-Type": "application/json"})
_AGAIN = (UnreachableError, SlowError, LockedError, ChecksumError)
_LEAVES: Final[Mapping[int, type[FieldrelayError]]] = {
    400: ProtocolError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: StateError,
    410: GoneError,
    413: TooLargeError,
    423: LockedError,
    _CHECKSUM_MISMATCH: ChecksumError,
    507: NoSpaceError,
}

Report = Callable[[int], None]
"""Called with how many bytes of a file are there for certain."""


class PushClient:
    """One gateway at `url`, as one pusher; `manner` holds what is shown there."""

    def __init__(self, session: aiohttp.ClientSession, url: str, manner: Manner, retry: Retry | None = None) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._manner = manner
        self._retry = retry or Retry()
        self._part_bytes = 4 << 20

    async def begin(self, begin: Begin) -> Session:
        """Begin a session, or go on with it. Errors: `WireError`, `StateError`."""
        return await self._persist(lambda: self._message("POST", "/push/v1/sessions", BEGIN.dump_json(begin)))

    async def show(self, session: str) -> Session:
        """How a session stands."""
        return await self._persist(lambda: self._message("GET", f"/push/v1/sessions/{session}"))

    async def has(self, sha256: Digest) -> bool:
        """Whether the gateway has this content already."""

        async def ask() -> bool:
            try:
                async with self._asked("HEAD", f"/push/v1/content/{sha256}"):
                    return True
            except NotFoundError:
                return False

        return await self._persist(ask)

    async def send(self, session: Session, path: str, file: Path, report: Report) -> None:
        """Have all of `file` there as `path`. Errors: those of the gateway, by name; `StoreError` for a file that changes."""
        length = (await asyncio.to_thread(file.stat)).st_size
        arriving = await self._persist(lambda: self._arriving(session.session, path, length))
        offset, failures = arriving.offset, 0
        report(offset)
        while offset < length:
            try:
                offset, failures = await self._part(arriving.url, file, offset, length), 0
                report(offset)
            except _AGAIN as error:
                self._part_bytes = max(_SMALLEST_BYTES, self._part_bytes // 2)
                before, offset = offset, await self._persist(lambda: self._offset(arriving.url))
                failures = 0 if offset > before else failures + 1
                if failures >= self._retry.attempts:
                    raise
                await self._retry.pause(max(1, failures))
                _LOG.debug("%s; %s goes on at byte %d", error, path, offset)

    async def finish(self, session: str) -> Verdict:
        """Have it judged; however long that takes, the verdict is asked for until it is there."""

        async def ask() -> Verdict:
            async with self._asked("POST", f"/push/v1/sessions/{session}/finish") as response:
                return VERDICT.validate_json(await read_bounded(response, _MOST_BYTES, self._manner))

        return await self._persist(ask)

    async def _arriving(self, session: str, path: str, length: int) -> Arriving:
        standing = await self._message("GET", f"/push/v1/sessions/{session}")
        for each in standing.files:
            if each.path == path:
                if each.length != length:
                    raise StateError(
                        f"{path} was begun with {each.length} bytes and has {length} now: push it as another session"
                    )
                return each
        said = ",".join(f"{key} {_base64(value.encode())}" for key, value in (("session", session), ("path", path)))
        headers = {**_TUS, "Upload-Length": str(length), "Upload-Metadata": said}
        async with self._asked("POST", "/push/v1/files", headers=headers) as response:
            return Arriving(path, length, 0, _location(response))

    async def _offset(self, url: str) -> int:
        async with self._asked("HEAD", url, headers=_TUS) as response:
            return _number(response, "Upload-Offset")

    async def _part(self, url: str, file: Path, offset: int, length: int) -> int:
        part = await asyncio.to_thread(_read, file, offset, min(self._part_bytes, length - offset))
        headers = {
            **_TUS,
            "Content-Type": UPLOAD_TYPE,
            "Upload-Offset": str(offset),
            "Upload-Checksum": f"sha256 {_base64(hashlib.sha256(part).digest())}",
        }
        begun_s = time.monotonic()
        async with self._asked("PATCH", url, headers=headers, body=part) as response:
            reached = _number(response, "Upload-Offset")
        took_s = time.monotonic() - begun_s
        if took_s < _QUICK_S:
            self._part_bytes = min(_LARGEST_BYTES, self._part_bytes * 2)
        elif took_s > _SLOW_S:
            self._part_bytes = max(_SMALLEST_BYTES, self._part_bytes // 2)
        return reached

    async def _message(self, method: str, path: str, body: bytes | None = None) -> Session:
        async with self._asked(method, path, headers=_JSON if body else {}, body=body) as response:
            try:
                return SESSION.validate_json(await read_bounded(response, _MOST_BYTES, self._manner))
            except ValidationError as error:
                raise ProtocolError(f"{response.url} answers with something that is no session") from error

    async def _persist(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask until there is an answer (rule 2)."""
        failures = 0
        while True:
            try:
                return await ask()
            except _AGAIN as error:
                failures += 1
                if failures >= self._retry.attempts:
                    raise
                await self._retry.pause(failures)
                _LOG.debug("%s; asked again", error)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, *, headers: Mapping[str, str] = MappingProxyType({}), body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange that succeeded. Errors: the gateway's refusal by its name."""
        url = self._url + path
        async with exchange(
            self._session, method, url, self._manner, headers=headers, body=body, redirects=False, once=True
        ) as response:
            if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                raise await self._refusal(response)
            yield response

    async def _refusal(self, response: aiohttp.ClientResponse) -> FieldrelayError:
        """What the gateway says, in its own words where they can be read."""
        words = f"{response.url} answers {response.status}"
        try:
            said = json.loads(await read_bounded(response, _MOST_BYTES, self._manner))
            words = f"the gateway says: {said['message']} ({said['code']})"[:2000]
        except (ValueError, TypeError, KeyError, WireError, EndlessDataError):
            pass  # a proxy's page, or nothing: the status says enough
        leaf = _LEAVES.get(response.status)
        if leaf is None:
            leaf = UnreachableError if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR else ProtocolError
        return leaf(words)


def _read(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        part = opened.read(size)
    if len(part) != size:
        raise StoreError(f"{file} became shorter while it was pushed: build it to its end first, then push it")
    return part


def _number(response: aiohttp.ClientResponse, name: str) -> int:
    text = response.headers.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise ProtocolError(f"{response.url} does not say its {name}: is it a gateway that takes pushes?")
    return int(text)


def _location(response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location", "")
    if not location.startswith("/push/v1/files/"):
        raise ProtocolError(f"{response.url} does not say where the file is to be sent to: {location[:80]!r}")
    return location


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
