"""A receiver of webhooks that verifies them by itself, and answers as it is told.

async with Receiver(SECRET) as receiver:
    receiver.status = 503
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer


def verified(secret: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a message is signed with `secret` (Standard Webhooks 1.0.0, "Verifying webhook authenticity")."""
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(each, f"v1,{expected}") for each in headers["webhook-signature"].split(" "))


@dataclass(slots=True)
class Receiver:
    """`taken` are the bodies that were answered 200, by id; `asked` counts all requests. `cut`: no answer to what is taken."""

    secret: bytes
    status: int = 200
    cut: bool = False
    asked: int = 0
    taken: list[tuple[str, Any]] = field(default_factory=list)  # JSON, read by the test
    _server: TestServer | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.add_routes([web.post("/hook", self._take)])
        self._server = TestServer(application)
        await self._server.start_server()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._server is not None:
            await self._server.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return str(self._server.make_url("/hook"))

    async def _take(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if not verified(self.secret, request.headers, body):
            return web.Response(status=401)
        if self.status == 200:
            self.taken.append((request.headers["webhook-id"], json.loads(body)))
        if self.cut and request.transport is not None:
            request.transport.abort()
        return web.Response(status=self.status, headers={"Location": "/elsewhere"} if 300 <= self.status < 400 else {})
