"""One part of one upload, as it comes (tus 1.0.0, core and checksum).

1. A part begins where the last one durably ended, and nowhere else: `offset` is compared first, and nothing is read if it lies.
2. One part at a time: whoever comes meanwhile is refused as locked.
3. Without a checksum, whatever came counts, also of a part that broke off. With one, a part counts as a whole or not at all.
4. What counts is on disk before anybody is told that it does. More than the file has is refused, and the surplus not kept.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final

import aiohttp
from aiohttp import web

from gateway.north.uploads.headers import Checksum
from gateway.north.uploads.shelf import Push, Shelf, Upload
from update.errors import ChecksumError, LockedError, SlowError, StateError, TooLargeError, UnreachableError
from update.store.staging import Staged

_LOG = logging.getLogger(__name__)
BLOCK_BYTES: Final = 1 << 20
SYNC_BYTES: Final = 16 << 20
"""What may have to be sent once more after a power cut."""
_BROKEN = (aiohttp.ClientError, web.RequestPayloadError, ConnectionError)


async def blocks(request: web.Request, stalled_s: float) -> AsyncGenerator[bytes, None]:
    """The body in blocks. Errors: `SlowError`, `UnreachableError` for one that breaks off."""
    block = bytearray()
    while True:
        try:
            async with asyncio.timeout(stalled_s):
                piece = await request.content.readany()
        except TimeoutError as error:
            raise SlowError(f"nothing came for {stalled_s:g} s: go on with what was not received") from error
        except _BROKEN as error:
            if block:
                yield bytes(block)
            raise UnreachableError(f"the part broke off ({type(error).__name__})") from error
        block += piece
        if block and (not piece or len(block) >= BLOCK_BYTES):
            yield bytes(block)
            block.clear()
        if not piece:
            return


async def receive(
    shelf: Shelf, push: Push, upload: Upload, body: AsyncIterator[bytes], *, offset: int, checksum: Checksum | None
) -> None:
    """Append a part. Errors: `StateError`, `LockedError`, `TooLargeError`, `ChecksumError`, those of the body, `StoreError`."""
    if not push.is_open:
        raise StateError(f"session {push.id} is being finished: nothing is added to it any more")
    with _alone(upload):
        if offset != upload.offset:
            raise StateError(f"{upload.path} is here up to byte {upload.offset}, the part begins at {offset}: ask for the offset")
        staged = await asyncio.to_thread(shelf.open, push, upload)
        try:
            if checksum is None:
                await _append(staged, upload, body)
            else:
                await _append_whole(staged, upload, body, checksum)
        finally:
            await asyncio.shield(asyncio.to_thread(staged.close))


async def _append(staged: Staged, upload: Upload, body: AsyncIterator[bytes]) -> None:
    end = upload.offset
    try:
        async for block in body:
            end = await _write(staged, upload, end, block)
            if end - upload.offset >= SYNC_BYTES:
                await asyncio.to_thread(staged.sync)
                upload.offset = end
    finally:
        if end > upload.offset:
            await asyncio.shield(asyncio.to_thread(staged.sync))
            upload.offset = end


async def _append_whole(staged: Staged, upload: Upload, body: AsyncIterator[bytes], checksum: Checksum) -> None:
    end, hasher = upload.offset, checksum.hasher()
    try:
        async for block in body:
            end = await _write(staged, upload, end, block)
            await asyncio.to_thread(hasher.update, block)
        if not hmac.compare_digest(hasher.digest(), checksum.digest):
            raise ChecksumError(f"bytes {upload.offset} to {end} of {upload.path} are not what was sent: send them again")
        await asyncio.to_thread(staged.sync)
        upload.offset = end
    finally:
        if end > upload.offset:
            await asyncio.shield(asyncio.to_thread(staged.truncate, upload.offset))


async def _write(staged: Staged, upload: Upload, at: int, block: bytes) -> int:
    if at + len(block) > upload.length:
        raise TooLargeError(f"{upload.path} was announced with {upload.length} bytes, and more of them come")
    await asyncio.to_thread(staged.write_at, at, block)
    return at + len(block)


@contextmanager
def _alone(upload: Upload) -> Generator[None]:
    if upload.busy:
        raise LockedError(f"{upload.path} is being received by another request: wait for it, then ask for the offset")
    upload.busy = True
    try:
        yield
    finally:
        upload.busy = False
