"""Asking a gateway for a pair patch: is there one, in which form, how large; what it answers, `docs/reference/wire.md` says.

A patch is never worth trouble: whoever asks waits a while for one that is being made, and takes the chunks otherwise. What
is announced here is believed for choosing only; the bytes are counted when they come and verified when they are used.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

import aiohttp

from update.chunks.pair import PatchOffer, form_of
from update.digest import Digest
from update.wire.http import PLAIN, Manner, exchange, refusal

_SHORTEST_S: Final = 1
_LONGEST_S: Final = 60
_MAX_DIGITS: Final = 4


def patch_url(repository_url: str, wire_path: str, *, base: Digest, memory_bytes: int) -> str:
    """Where the patch to `wire_path` is, for a node that runs the image with zchunk header `base` and gives so much memory."""
    return f"{repository_url}/patches/{wire_path}?{urlencode({'from': base, 'memory': memory_bytes})}"


async def find_patch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    wait_s: float,
    manner: Manner = PLAIN,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> PatchOffer | None:
    """What is offered, after up to `wait_s` seconds of waiting while it is made; None if there is none.

    Errors: leaves of `WireError`.
    """
    while True:
        async with exchange(session, "HEAD", url, manner, small=True) as response:
            match response.status:
                case HTTPStatus.OK:
                    return _offer(response)
                case HTTPStatus.NOT_FOUND:
                    return None
                case HTTPStatus.ACCEPTED:
                    pause_s = _pause_s(response.headers.get("Retry-After", ""))
                case _:
                    raise refusal(response)
        if wait_s <= 0:
            return None
        pause_s = min(pause_s, wait_s)
        await sleep(pause_s)
        wait_s -= pause_s


def _offer(response: aiohttp.ClientResponse) -> PatchOffer | None:
    """None for a form that this release does not know, or a size that is not said."""
    form, size = form_of(response.headers.get("Content-Type", "")), response.content_length
    return None if form is None or not size else PatchOffer(form, size)


def _pause_s(retry_after: str) -> float:
    said = int(retry_after) if retry_after.isdigit() and len(retry_after) <= _MAX_DIGITS else _LONGEST_S
    return float(max(_SHORTEST_S, min(_LONGEST_S, said)))
