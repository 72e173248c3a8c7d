"""The plain listener for stock clients: signed URLs as origin and as forward proxy, and never anything else.

A request means one URL (RFC 9112, sections 3.2 and 3.3): a proxy gets it whole in the request line and ignores the Host
field; an origin gets its path there, and its host in the Host field. It is answered if

1. a verified bundle names that URL (`registry.py`), whatever its host: then the body comes from the store or the relay; or
2. its host is the stable name of a repository and its path a target there; or
3. other gateways may have this one as their upstream, it is asked as origin, and the path is that of a repository's file.

Everything else is refused by name: 403 to who takes us for an open proxy, 404 to who asks us as origin, 503 to both while a
repository was never verified here and so may name that URL (a new gateway, before its first refresh). The URL of a request
decides what is looked up here, and never where a connection goes: so there is nothing to allow or to deny by address, and
the registered URLs are the whole allow-list. CONNECT is refused always.
"""

import re
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web

from gateway.south.content import ContentServer
from gateway.south.fast_lane import Lookup
from gateway.south.open_files import Lease
from gateway.south.registry import Registry
from gateway.south.signed_urls import url_key
from update.errors import NotFoundError, NotProxiedError, ProtocolError
from update.trust.verified import TargetInfo

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HOST = re.compile(r"[^\s/?#@\\]*")
_SHOWN = 120


class StockContent:
    """What the plain listener answers. `name` is the gateway's own in `Via`: what it asks of itself is refused."""

    def __init__(self, registry: Registry, content: ContentServer, *, name: str = "") -> None:
        self._registry = registry
        self._content = content
        self._name = name

    def routes(self) -> list[web.RouteDef]:
        """Targets below a repository's name, and any path that a signed URL may have."""
        return [web.get("/{path:targets/.+}", self.answer), web.get("/{anything:.*}", self.answer)]

    def peer_routes(self) -> list[web.RouteDef]:
        """For other gateways: whole repositories, where we are asked as their origin."""
        return [
            web.get("/repositories/{repository}/metadata/{name}", self.answer_peer),
            web.get("/repositories/{repository}/{path:targets/.+}", self.answer_peer),
        ]

    def lookup(self, host: str, path: str) -> Lookup | None:
        """For the fast lane: what `answer` finds below `/targets/`, of a signed URL or of a repository's own name."""
        if not path.startswith("/targets/"):
            return None
        key = url_key(f"http://{host}{path}")
        if key is None:
            return None
        name = host.partition(":")[0]
        return lambda: self._registry.find(key) or self._content.find(name, path[1:])

    def opened(self, info: TargetInfo) -> int | None:
        """As of `ContentServer`."""
        return self._content.opened(info)

    async def stored(self, info: TargetInfo) -> Lease | None:
        """As of `ContentServer`."""
        return await self._content.stored(info)

    async def answer_peer(self, request: web.Request) -> web.StreamResponse:
        """A file of a repository, or a signed URL that looks like one."""
        if info := self._signed(request):
            return await self._content.send(request, info)
        if is_absolute(request):
            raise self._content.lacking(not_proxied(request))
        return await (self._content.target if "path" in request.match_info else self._content.metadata)(request)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the URL of a GET or HEAD stands for."""
        if info := self._signed(request):
            return await self._content.send(request, info)
        if is_absolute(request) and url_key(request.raw_path) is None:
            raise not_proxied(request)
        if "path" not in request.match_info:
            raise self._content.lacking(not_proxied(request) if is_absolute(request) else _not_here(request))
        try:
            return await self._content.stock_target(request)
        except NotFoundError as error:
            raise self._content.lacking(not_proxied(request) if is_absolute(request) else error) from error

    def _signed(self, request: web.Request) -> TargetInfo | None:
        """The target behind the URL that a request means, if a bundle names it."""
        check_host(request)
        if self._name and any(self._name in each for each in request.headers.getall("Via", [])):
            raise NotFoundError(
                f"{meant_url(request)[:_SHOWN]!r} leads the gateway that fetches it back to itself: mind its names"
            )
        key = url_key(meant_url(request))
        return None if key is None else self._registry.find(key)


@web.middleware
async def no_tunnel(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse by name what only a proxy is asked for: CONNECT, and any whole URL with another method than GET and HEAD."""
    if request.method == "CONNECT" or (is_absolute(request) and request.method not in {"GET", "HEAD"}):
        raise not_proxied(request)
    return await handler(request)


def check_host(request: web.Request) -> None:
    """Refuse a request that names no host, or several, or what is none (RFC 9112, section 3.2): who is before us may differ."""
    hosts = request.headers.getall("Host", [])
    expected = 1 if request.version >= HttpVersion11 else len(hosts[:1])
    if len(hosts) != expected or not all(map(_HOST.fullmatch, hosts)):
        raise ProtocolError(f"a request has one Host field with a host in it: got {[host[:_SHOWN] for host in hosts[:3]]!r}")


def is_absolute(request: web.Request) -> bool:
    """Whether the request line holds a whole URL, as a proxy gets it."""
    return not request.raw_path.startswith(("/", "*"))


def meant_url(request: web.Request) -> str:
    """The URL that a request means, as it was written."""
    return request.raw_path if is_absolute(request) else f"http://{request.headers.get('Host', '')}{request.raw_path}"


def not_proxied(request: web.Request) -> NotProxiedError:
    """The refusal of a URL that nobody signed."""
    return NotProxiedError(
        f"{request.method} {request.raw_path[:_SHOWN]!r}: this gateway is no open proxy; it answers GET and HEAD of the URLs "
        "that verified bundles name. Set no_proxy for everything else"
    )


def _not_here(request: web.Request) -> NotFoundError:
    return NotFoundError(f"no verified bundle names {meant_url(request)[:_SHOWN]!r}")
