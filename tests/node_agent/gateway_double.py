"""A gateway in one process: TLS, enrolment, one repository, DDI for one node. It does what it is told, and counts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import BasicAuth, web

from tests.builders.repository import RepositoryBuilder
from tests.builders.site import Site
from update.wire.assignment import Assignment
from update.wire.ddi import Feedback, decode
from update.wire.est import decode_base64, encode_certificates
from update.wire.tls import node_of

NODE, TOKEN = "n1", "one-time"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CONTROLLER = f"/DEFAULT/controller/v1/{NODE}"


@dataclass
class Gateway:
    """`order` is what the node is told to do until it reports an end; `files` are served at `/repositories/NAME/`."""

    site: Site
    name: str
    repository: RepositoryBuilder
    token: str = TOKEN
    order: Assignment | None = None
    size: int = 0
    cancel: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    feedback: list[Feedback] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    zck: dict[str, Path] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Gateway"]:
        app = web.Application(middlewares=[self._counted])
        app.add_routes(
            [
                web.get("/.well-known/est/cacerts", self._cacerts),
                web.post("/.well-known/est/simpleenroll", self._enroll),
                web.get(f"/repositories/{self.name}/{{path:.*}}", self._file),
                web.get(_CONTROLLER, self._root),
                web.put(f"{_CONTROLLER}/configData", self._config_data),
                web.get(f"{_CONTROLLER}/deploymentBase/{{action}}", self._deployment),
                web.get(f"{_CONTROLLER}/cancelAction/{{action}}", self._cancellation),
                web.post(f"{_CONTROLLER}/{{resource}}/{{action}}/feedback", self._feedback),
            ]
        )
        async with self.site.serve(app) as self.port:
            yield self

    @property
    def outcomes(self) -> list[str]:
        """The results that were told, in order."""
        return [told.fieldrelay.outcome for told in self.feedback if told.fieldrelay and told.fieldrelay.outcome]

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        public = request.path.startswith("/.well-known/")
        if not public and node_of(request.get_extra_info("ssl_object")) != NODE:
            return web.Response(status=401)
        return await handler(request)

    async def _cacerts(self, _request: web.Request) -> web.Response:
        return web.Response(body=encode_certificates([self.site.authority.certificate]))

    async def _enroll(self, request: web.Request) -> web.Response:
        shown = BasicAuth.decode(request.headers["Authorization"])
        if (shown.login, shown.password) != (NODE, self.token):
            return web.json_response({"code": "wire.unauthorized", "message": "no such token"}, status=401)
        self.token = ""
        csr = decode_base64(await request.read())
        certificate = self.site.authority.issue_node(csr, node=NODE, now=self.site.now)
        return web.Response(body=encode_certificates([certificate]))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path in self.zck:
            return web.FileResponse(self.zck[path])
        if path not in self.repository.files:
            return web.Response(status=404)
        return web.Response(body=self.repository.files[path])

    async def _root(self, _request: web.Request) -> web.Response:
        links: dict[str, object] = {} if self.attributes else {"configData": {"href": f"{self.url}{_CONTROLLER}/configData"}}
        if self.cancel is not None:
            links["cancelAction"] = {"href": f"{self.url}{_CONTROLLER}/cancelAction/{self.cancel}"}
        elif self.order is not None:
            links["deploymentBase"] = {"href": f"{self.url}{_CONTROLLER}/deploymentBase/{self.order.action}?c=1"}
        return web.json_response({"config": {"polling": {"sleep": "00:00:30"}}, "_links": links})

    async def _config_data(self, request: web.Request) -> web.Response:
        self.attributes = (await request.json())["data"]
        return web.Response()

    async def _deployment(self, _request: web.Request) -> web.Response:
        if self.order is None:
            return web.Response(status=404)
        artifact = {"filename": "os.swu", "hashes": {"sha256": self.order.sha256}, "size": self.size}
        metadata = [{"key": each.key, "value": each.value} for each in self.order.metadata()]
        chunk = {"part": "os", "version": "2", "name": "os", "artifacts": [artifact], "metadata": metadata}
        deployment = {"download": "forced", "update": "forced", "chunks": [chunk]}
        return web.json_response({"id": str(self.order.action), "deployment": deployment})

    async def _cancellation(self, _request: web.Request) -> web.Response:
        return web.json_response({"id": str(self.cancel), "cancelAction": {"stopId": str(self.cancel)}})

    async def _feedback(self, request: web.Request) -> web.Response:
        told = decode(Feedback, await request.read(), max_bytes=1 << 16)
        self.feedback.append(told)
        if told.fieldrelay and told.fieldrelay.outcome:
            self.order = self.cancel = None
            self.ended.set()
        return web.Response()
