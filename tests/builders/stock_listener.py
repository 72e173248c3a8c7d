"""The plain listener for stock clients, over a store that lacks the image and an upstream in memory that has it.

listener = Listener(tmp_path, zck)           # a bundle names FOREIGN and ADDRESS for the image
runner = await listener.start()
await listener.ask(FOREIGN, "Range: bytes=0-9")
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.proxy import StockContent
from gateway.south.registry import Registry
from gateway.south.routes import content_application, listen, make_runner
from gateway.south.streamed import Streaming
from tests.builders.delta_bundle import bundle_info, verified_delta
from tests.builders.relay_site import RelaySite
from tests.builders.relayed import MemorySource, info_of
from update.trust.verified import TargetInfo

FOREIGN = "http://cdn.vendor.example:8081/os/image.zck?v=2"
ADDRESS = "http://[2001:db8::1]/image.zck"
LIKE_OURS = "http://mirror.vendor.example/repositories/plant/targets/image.zck"
"""A signed URL of another host, with a path as other gateways ask for it."""


class Listed:
    """Metadata that lists one image."""

    def __init__(self, info: TargetInfo) -> None:
        self._info = info
        self.lacking: list[str] = []

    def unread(self) -> list[str]:
        return self.lacking

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        return self._info if (repository, wire_path) == ("plant", self._info.wire_path) else None

    def metadata(self, _repository: str, _name: str) -> bytes | None:
        return None


class Reply:
    """What came until the server had nothing more to say."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.status = int(head.split()[1]) if head else 0
        self.head = head.decode("latin-1").lower()
        self.head_as_sent = head.decode("latin-1")

    @property
    def not_proxied(self) -> bool:
        return self.status == 403 and b'"wire.not-proxied"' in self.body


class Listener:
    """The plain listener over a store that lacks the image, and an upstream in memory that has it."""

    def __init__(
        self,
        folder: Path,
        zck: Path,
        *,
        hold_s: float = 20.0,
        memory_bytes: int = 32 << 20,
        streaming: Streaming | None = None,
        name: str = "",
    ) -> None:
        self.name = name
        self.image = zck.read_bytes()
        self.upstream = MemorySource(self.image)
        self.site = RelaySite(folder, {"plant": [self.upstream]}, hold_s=hold_s, memory_bytes=memory_bytes)
        self.info = info_of(zck)
        self.registry = Registry(["plant"])
        bundle = verified_delta(folder, zck, FOREIGN, ADDRESS, LIKE_OURS)
        self.bundle = bundle_info(bundle.file)
        self.registry.learn(self.bundle, bundle)
        self.registry.shown("plant", [self.bundle, self.info])
        self.files = OpenFiles()
        self.listed = Listed(self.info)
        self.content = ContentServer(self.listed, self.site.find, self.site.relays, self.files, streaming=streaming)
        self.port = 0

    async def start(self, *, peers: bool = False) -> web.AppRunner:
        """Listen; with `peers` for other gateways too."""
        stock = StockContent(self.registry, self.content, name=self.name)
        runner = make_runner(content_application([*(stock.peer_routes() if peers else []), *stock.routes()]))
        await runner.setup()
        self.port = await listen(runner, ["127.0.0.1"], 0, None, key="stock")
        return runner

    async def raw(self, request: bytes) -> Reply:
        """Send bytes, of which the last request closes the connection or is refused, and read all that comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                return Reply(await reader.read())
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, target: str, *fields: str, host: str | None = "x", method: str = "GET") -> Reply:
        named = [] if host is None else [f"Host: {host}"]
        lines = [f"{method} {target} HTTP/1.1", *named, *fields, "Connection: close", "", ""]
        return await self.raw("\r\n".join(lines).encode("latin-1"))
