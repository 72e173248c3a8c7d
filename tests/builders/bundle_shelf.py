"""A server from which jobs fetch their bundle."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web
from aiohttp.test_utils import TestServer

from update.digest import digest_of


@dataclass(slots=True)
class BundleShelf:
    """Serves `content` as `os.swu`; what a server may leave out can be left out."""

    content: bytes
    url: str = ""
    etag: bool = True
    heads: bool = True
    chunked: bool = False
    tag: str = ""  # instead of one that changes with the content
    cut_after: int | None = None  # bytes of a body, before the connection breaks
    leads_to: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, Authorization

    def definition(self, name: str = "os.swu", *others: str) -> dict[str, object]:
        """The definition of a job for SWUpdate."""
        artifacts = [{"name": each, "version": "1.2", "uri": f"{self.url}/{each}"} for each in (name, *others)]
        return {"version": "1.0", "type": ["firmware"], "artifacts": artifacts}

    @property
    def gets(self) -> int:
        """How often the content was asked for."""
        return [method for method, _ in self.requests].count("GET")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append((request.method, request.headers.get("Authorization", "")))
        if self.leads_to and not request.host.startswith("localhost"):
            return web.Response(status=HTTPStatus.FOUND, headers={"Location": self.leads_to})
        if not request.path.endswith("os.swu"):
            return web.Response(status=HTTPStatus.NOT_FOUND)
        if request.method == "HEAD" and not self.heads:
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED)
        headers = {"ETag": f'"{self.tag or digest_of(self.content)}"'} if self.etag else {}
        if self.cut_after is not None and request.method == "GET":
            return await self._cut(request, headers)
        return self._content(request, headers)

    def _content(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        if self.chunked:
            return web.Response(body=_pieces(self.content), headers=headers)
        if "Range" in request.headers:
            span = request.http_range
            end = span.stop or len(self.content)
            headers["Content-Range"] = f"bytes {span.start}-{end - 1}/{len(self.content)}"
            return web.Response(status=HTTPStatus.PARTIAL_CONTENT, body=self.content[span.start : end], headers=headers)
        return web.Response(body=self.content, headers=headers)

    async def _cut(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Content-Length": str(len(self.content))})
        await response.prepare(request)
        await response.write(self.content[: self.cut_after])
        assert request.transport is not None
        request.transport.close()  # what was written still leaves
        return response


@asynccontextmanager
async def bundle_shelf(content: bytes) -> AsyncIterator[BundleShelf]:
    """A shelf at `url`, while the context lasts."""
    made = BundleShelf(content)
    application = web.Application()
    application.router.add_get("/{name}", made.answer)
    async with TestServer(application, host="127.0.0.1") as server:
        made.url = str(server.make_url("/")).rstrip("/")
        yield made


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
