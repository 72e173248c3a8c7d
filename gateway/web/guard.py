"""What stands before the page, which anybody on the LAN may ask: strict headers, plain methods, known names, and limits.

1. Only names that are ours are answered: addresses, names without a dot or in `.local`, and `south.hosts`. A page elsewhere,
   whose name is made to point here (DNS rebinding), learns nothing.
2. One address has a budget of requests that fills up slowly; what is beyond it is refused as busy.
3. Nothing is kept, framed, or loaded from anywhere else (Content Security Policy 3).
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from update.errors import BusyError, ForbiddenError

BURST: Final = 60.0
"""Requests that an address may make at once."""
PER_S: Final = 10.0
"""Requests in a second that its budget regains."""
MAX_ADDRESSES: Final = 2048
HEADERS: Final = MappingProxyType({
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "Fieldrelay",
})  # fmt: skip
"""On every answer."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Budgets:
    """How many requests each address may still make. With many, the one that was silent for longest is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, address: str) -> None:
        """One request. Errors: `BusyError`."""
        now = self._clock()
        left, since = self._left.pop(address, (BURST, now))
        left = min(BURST, left + (now - since) * PER_S)
        self._left[address] = (max(0.0, left - 1), now)
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        if left < 1:
            raise BusyError(f"{address} asks more than {PER_S:.0f} times in a second; wait a little")


def guarded(hosts: Collection[str], budgets: Budgets) -> Middleware:
    """The rules above; `hosts` are further names of this gateway. Errors: `ForbiddenError`, `BusyError`."""
    ours = frozenset(host.lower() for host in hosts)

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        budgets.spend(request.remote or "")
        if not is_ours(request.host, ours):
            raise ForbiddenError(f"{request.host[:80]!r} is no name of this gateway: give it in south.hosts, or use its address")
        return await handler(request)

    return guard


def is_ours(host: str, ours: Collection[str]) -> bool:
    """Whether a `Host` header names this gateway."""
    name = host.lower()
    name = name.partition("]")[0].removeprefix("[") if name.startswith("[") else name.partition(":")[0]
    if "." not in name.rstrip(".") or name.endswith(".local") or name in ours:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


async def strict_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`."""
    response.headers.update(HEADERS)
