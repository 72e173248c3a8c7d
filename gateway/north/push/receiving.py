"""An uploaded bundle on its way in: limited, given room, streamed into the store's staging, proved, kept.

1. The length of the request is known and within the limit before a byte of it is read; room is made for so much.
2. What arrives is hashed on the way: a repository that lists it vouches for it (provenance `tuf`), else it is proved by its own
   signature (`north.vouched`). Until then nobody else sees it, and what cannot be proved is thrown away.
3. An upload cannot be resumed: the master begins again, and so does the staged file.
"""

import asyncio
import hashlib
import re
import uuid
from typing import Final

import aiohttp
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.north.vouched import Obtained, Vouched
from update.digest import Digest, digest_of
from update.errors import ProtocolError, SlowError, TooLargeError, UnreachableError
from update.store.staging import Staged
from update.trust.verified import verify_target

FIELD: Final = "swupdate-package"
"""The form's field, as the handler names it."""
_PIECE_BYTES = 1 << 20
_FORM_BYTES = 64 << 10
"""Room for what the form adds to the bundle."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}\.(swu|raucb)", re.ASCII)
_FORM = re.compile(r"multipart/form-data\s*;", re.IGNORECASE)


class Receiving:
    """Receives for one listener. `stalled_after_s`: how long a master may be silent in the middle."""

    def __init__(self, vouched: Vouched, *, max_bytes: int, stalled_after_s: float) -> None:
        self._vouched = vouched
        self._max_bytes = max_bytes
        self._stalled_after_s = stalled_after_s

    async def receive(self, request: web.Request) -> Obtained:
        """The bundle of this upload, proved and stored.

        Errors: `ProtocolError`, `TooLargeError`, `SlowError`, `UnreachableError` for the upload; `NoSpaceError`, `StoreError`;
        `TrustError`, `BundleError` for what is in it.
        """
        length = self._announced(request)
        arriving = self._vouched.info("upload.swu", digest_of(uuid.uuid4().bytes), length)
        room = self._vouched.room
        await room.admit(arriving)
        with await asyncio.to_thread(room.store.stage, arriving) as staged:
            try:
                name, sha256, size = await self._take(request, staged)
                return await self._keep(name, sha256, size, staged)
            finally:
                await asyncio.to_thread(staged.discard)  # it was staged under a name that means nothing from here on

    def _announced(self, request: web.Request) -> int:
        if not _FORM.match(request.headers.get("Content-Type", "")):
            raise ProtocolError(f"an upload is a form: multipart/form-data with the bundle as a file, field {FIELD}")
        length = request.content_length
        if length is None:
            raise ProtocolError("an upload says its Content-Length; chunked ones are not taken")
        if length > self._max_bytes + _FORM_BYTES:
            raise TooLargeError(f"the upload has {length} bytes, at most {self._max_bytes} are taken (max_bundle_bytes)")
        return length

    async def _take(self, request: web.Request, staged: Staged) -> tuple[str, Digest, int]:
        """The form's first file: its name, SHA-256 and length."""
        hasher, size = hashlib.sha256(), 0
        try:
            async with asyncio.timeout(self._stalled_after_s):
                part = await (await request.multipart()).next()
            if not isinstance(part, BodyPartReader) or part.filename is None:
                raise ProtocolError(f"the form begins with no file; the bundle is its first part, field {FIELD}")
            while piece := await self._piece(part):
                hasher.update(piece)
                await asyncio.to_thread(staged.write_at, size, piece)
                size += len(piece)
        except TimeoutError as error:
            raise SlowError(f"the upload stalled for {self._stalled_after_s:g} s after {size} bytes; push it again") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UnreachableError(f"the upload ended after {size} bytes; push it again") from error
        except (ValueError, AssertionError, HttpProcessingError) as error:  # what aiohttp finds wrong with a form
            raise ProtocolError(f"the form is malformed after {size} bytes of its file: {str(error)[:100]!r}") from error
        name = part.filename if _NAME.fullmatch(part.filename) else "swupdate.swu"
        return name, Digest(hasher.hexdigest()), size

    async def _piece(self, part: BodyPartReader) -> bytes:
        async with asyncio.timeout(self._stalled_after_s):
            return await part.read_chunk(_PIECE_BYTES)

    async def _keep(self, name: str, sha256: Digest, size: int, staged: Staged) -> Obtained:
        if (found := self._vouched.listed(sha256, size)) is not None:
            listed, obtained = found
            if self._vouched.room.store.find(listed) is None:  # it is here: it need not be mirrored
                verified = await asyncio.to_thread(verify_target, listed, staged.path)
                await asyncio.to_thread(self._vouched.room.store.publish, verified)
            return obtained
        info = self._vouched.info(name, sha256, size)
        kept = await self._vouched.kept(info)
        return await self._vouched.keep(info, staged) if kept is None else kept
