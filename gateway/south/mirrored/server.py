"""The mirrored routes towards the nodes: GET and HEAD below each prefix, on the plain listener for stock clients.

Registries (OCI distribution specification 1.1): `/v2/` says that the protocol is spoken, without asking upstream; manifests
carry their media type, and manifests and blobs `Docker-Content-Digest`. There is no token authentication on either side:
the upstream is a registry that lets this gateway pull, the nodes are those of the LAN. HEAD fetches what it asks for, since
a client that asks for the head of a layer pulls it next.

A route without a host answers what is asked of this gateway itself, never the whole URL that a proxy gets: only a route's own
host counts there. What no route answers goes on to `otherwise`, so that a route never hides a signed URL of another host.

A body begins when all of it is on disk and proved; a large one that lasts is sent while it comes (`growing`). Queries are
ignored: they are no part of any name here.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from aiohttp import web

from gateway.sections.routes import RouteKind
from gateway.south.files import answer, etag_of
from gateway.south.mirrored.growing import Growing
from gateway.south.mirrored.mirror import Content, Mirror
from gateway.south.mirrored.objects import Held
from gateway.south.mirrored.rules import plain_path
from gateway.south.mirrored.streaming import can_stream, stream
from gateway.south.open_files import Lease, OpenFiles
from gateway.south.proxy import check_host, is_absolute
from gateway.south.range_response import RangeResponse
from update.digest import parse_digest
from update.errors import ProtocolError, UnreachableError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_API: Final = "/v2/"
_API_HEADERS: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
_PLAIN_TYPE: Final = b"Content-Type: application/octet-stream\r\n"


class MirrorServer:
    """Handlers of all mirrored routes. Where several prefixes fit, the longest counts; one with a host before one without."""

    def __init__(self, mirrors: Sequence[Mirror], files: OpenFiles, otherwise: Handler) -> None:
        self._otherwise = otherwise
        self._mirrors = sorted(mirrors, key=lambda each: (len(each.route.prefix), bool(each.route.host)), reverse=True)
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        """One resource for each prefix, the longest first."""
        prefixes = list(dict.fromkeys(mirror.route.prefix for mirror in self._mirrors))
        api = any(mirror.route.kind is RouteKind.OCI for mirror in self._mirrors)
        known = [web.get(path, self.registry) for path in (_API, _API.rstrip("/")) if api]
        return known + [web.get(f"{prefix}{{mirrored:.+}}", self.serve) for prefix in prefixes]

    async def registry(self, request: web.Request) -> web.StreamResponse:
        """The protocol's first question."""
        check_host(request)
        return await self._otherwise(request) if is_absolute(request) else web.json_response({}, headers=_API_HEADERS)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Content by host and path."""
        check_host(request)
        raw = request.rel_url.raw_path
        mirror = self._mirror(request, raw)
        if mirror is None:
            return await self._otherwise(request)
        path, oci = plain_path(raw[len(mirror.route.prefix) :]), mirror.route.kind is RouteKind.OCI
        content = await (mirror.begin(path) if can_stream(request.headers) else mirror.get(path))
        if isinstance(content, Growing):
            return await stream(request, content, _registry_headers(path, content.media_type) if oci else {})
        held = content.held
        result = answer(request.method, request.headers, held.size_bytes, etag_of(parse_digest(held.digest)))
        head = result.head
        if oci:
            if held.media_type:
                head = head.replace(_PLAIN_TYPE, f"Content-Type: {held.media_type}\r\n".encode(), 1)
            head += f"Docker-Content-Digest: {_registry_digest(held)}\r\n".encode()
        return RangeResponse(replace(result, head=head), self._lend(content) if result.parts else None)

    def _mirror(self, request: web.Request, raw: str) -> Mirror | None:
        hosts = {_host(request)} if is_absolute(request) else {"", _host(request)}
        fitting = (each for each in self._mirrors if raw.startswith(each.route.prefix) and each.route.host in hosts)
        return next(fitting, None)

    def _lend(self, content: Content) -> Lease:
        digest = parse_digest(content.held.digest)
        try:
            return self._files.borrow(digest) or self._files.open(digest, content.file)
        except FileNotFoundError as error:
            raise UnreachableError(f"{content.held.path} was removed while it was asked for; ask again") from error


def _host(request: web.Request) -> str:
    """The host of the URL that is meant; `-`, which no route has, for none."""
    try:
        return request.url.host or "-"
    except ValueError as error:
        raise ProtocolError(f"not a host: {request.host[:80]!r}") from error


def _registry_headers(path: str, media_type: str) -> dict[str, str]:
    """Of a blob or manifest that is asked for by its digest: only those are streamed."""
    reference = path.rpartition("/")[2]
    kind, _, digest = reference.partition(":")
    known = {"Docker-Content-Digest": reference, "Content-Type": media_type, "ETag": f'"{digest}"' if kind == "sha256" else ""}
    return {name: value for name, value in known.items() if value}


def _registry_digest(held: Held) -> str:
    """The digest by which the client asked, else the content's."""
    reference = held.path.rpartition("/")[2]
    return reference if ":" in reference else f"sha256:{held.digest}"
