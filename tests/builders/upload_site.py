"""The resources of tus on a real server of this process, over a folder; what judges is not there."""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.edge import refuse_by_name
from gateway.north.uploads.pushers import Pushers
from gateway.north.uploads.shelf import Limits, Push, Shelf
from gateway.north.uploads.tus import Tus
from gateway.sections.pushers import PusherSection
from update.durable import Disk
from update.wire.push_messages import UPLOAD_TYPE

TUS = {"Tus-Resumable": "1.0.0"}
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
Client = TestClient[web.Request, web.Application]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def checksum(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


@dataclass
class UploadSite:
    """One pusher, `ci`; `seconds` is the time since 1970."""

    folder: Path
    seconds: float = NOON.timestamp()
    disk: Disk | None = None
    quota_bytes: int = 1 << 20
    uploads: int = 2

    def pusher(self, name: str = "ci") -> PusherSection:
        token = self.folder / f"{name}.token"
        token.write_text(f"token-of-{name}\n")
        return PusherSection(name=name, token=token, repositories=("plant",), quota_bytes=self.quota_bytes, uploads=self.uploads)

    def shelf(self) -> Shelf:
        limits = Limits(expire_s=3600, max_file_bytes=1 << 19, reserve_bytes=0)
        return Shelf(self.disk or Disk(), self.folder / "pushes", limits, lambda: self.seconds)

    @asynccontextmanager
    async def serving(self, shelf: Shelf, stalled_s: float = 60.0) -> AsyncIterator[Client]:
        pushers = Pushers([self.pusher(), self.pusher("other")], lambda: datetime.fromtimestamp(self.seconds, UTC))
        await shelf.load()
        application = web.Application(middlewares=[refuse_by_name])
        application.add_routes(Tus(shelf, pushers, stalled_s=stalled_s).routes())
        async with TestClient(TestServer(application)) as client:
            yield client


def shown(name: str = "ci") -> dict[str, str]:
    return {"Authorization": f"Bearer token-of-{name}", **TUS}


async def create(client: Client, push: Push, path: str, length: int, **more: str) -> aiohttp.ClientResponse:
    said = f"session {encoded(push.id)},path {encoded(path)}"
    headers = {**shown(), "Upload-Length": str(length), "Upload-Metadata": said, **more}
    async with client.post("/push/v1/files", headers=headers) as response:
        await response.read()
        return response


async def append(
    client: Client, url: str, offset: int, data: object, headers: Mapping[str, str] | None = None
) -> aiohttp.ClientResponse:
    merged = {**shown(), "Upload-Offset": str(offset), "Content-Type": UPLOAD_TYPE, **(headers or {})}
    async with client.patch(url, headers=merged, data=data) as response:
        await response.read()
        return response


async def offset_of(client: Client, url: str) -> int:
    async with client.head(url, headers=shown()) as response:
        assert response.status == 200
        return int(response.headers["Upload-Offset"])
