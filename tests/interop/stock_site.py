"""A gateway's plain listener over one misbehaving upstream, with a signed delta bundle that names a foreign URL.

What a client asks is kept (`asked`), so that a run can be judged by what it requested and not by its exit status.
"""

import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from gateway.north.mirrors import Mirrors
from gateway.north.sources import Current, HttpUpstream
from gateway.north.upstream import Mirror
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.proxy import StockContent
from gateway.south.registry import Registry
from gateway.south.relays import Relays
from gateway.south.routes import content_application, make_runner
from gateway.south.streamed import Streaming
from tests.builders.bundles import describe, signed
from tests.builders.delta_bundle import delta_image
from tests.builders.keys import make_pki
from tests.builders.relayed import custom_of
from tests.builders.repository import RepositoryBuilder
from update.bundle.cms import CmsPolicy
from update.bundle.reader import verify_bundle
from update.chunks.ranges import Range, parse_range
from update.digest import digest_file, digest_of
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import Provenance, TargetInfo
from update.wire.rate import Retry
from update.wire.session import wan_session

NAME = "plant"
FOREIGN = "http://cdn.vendor.example:8081/deltas/image.zck?version=2"
BLANK = b"\xe5"
"""What a slot holds before: neither of zeros nor of the image."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def now() -> datetime:
    return datetime.now(UTC)


class Vendor:
    """Two versions of an image with scattered changes, the repository that has the new one, and bundles for it."""

    def __init__(self, folder: Path, *, blocks: int = 1500, edits: int = 24) -> None:
        dice = random.Random(11)
        old = bytearray(b"".join(dice.randbytes(2048) + bytes(2048) for _ in range(blocks)))
        self.folder = folder
        self.old = bytes(old)
        for number in range(edits):
            place = (number * len(old)) // edits + dice.randrange(3000)
            old[place : place + 900] = dice.randbytes(900)
        half = len(old) // 2
        old[half : half + 400_000] = bytes(400_000)  # zeros that the old image lacks, several chunks of them alike
        self.new = bytes(old)
        self._write("old", self.old)
        self.zck = self._write("new", self.new)
        self.slots = folder / "slots"
        self.slots.mkdir()
        self.named = f"http://{NAME}/targets/blobs/{digest_file(self.zck)[0]}.7.bin"
        self.bundles = {(url, count): self.bundle(count, url) for url in (FOREIGN, self.named) for count in (150, 10)}
        self.repository, self.root = self._publish(*self.bundles.values())

    def bundle(self, max_ranges: int, url: str = FOREIGN) -> Path:
        """A signed bundle that writes `slots`/b from `slots`/a and from what stands at `url`."""
        entry = delta_image(self.zck, url, max_ranges=max_ranges, device=str(self.slots / "b"))
        entry["properties"] = {**entry["properties"], "source": str(self.slots / "a")}  # type: ignore[dict-item]  # a group of texts
        name = f"delta-{digest_of(url.encode())[:8]}-{max_ranges}.swu"
        return signed(self.folder, describe(images=[entry]), {"image-0.zck": zck_header(self.zck)}, name=name)

    def _publish(self, *bundles: Path) -> tuple[Path, bytes]:
        """A repository of the image under a name of its own, and of the bundles; its folder and its root."""
        builder, folder = RepositoryBuilder(now=now()), self.folder / "repository"
        builder.add_target("blobs/7.bin", self.zck.read_bytes(), custom_of(self.zck).as_json())
        for bundle in bundles:
            builder.add_target(f"os/{bundle.name}", bundle.read_bytes(), {"hwIds": ["demo:1.0"], "version": "2.0"})
        builder.publish()
        builder.write_to(folder)
        return folder, builder.root_bytes

    def fill_slots(self, folder: Path) -> Path:
        """Slots of one run, to be mounted over `slots`: a holds the old image, b is blank; the folder."""
        folder.mkdir()
        (folder / "a").write_bytes(self.old)
        (folder / "b").write_bytes(BLANK * len(self.new))
        return folder

    def _write(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        write_zchunk(self.folder / name, self.folder / f"{name}.zck", Disk())
        return self.folder / f"{name}.zck"


class StockSite:
    """The gateway's side; runs in a thread of its own, on a socket that it is given."""

    def __init__(
        self,
        state: Path,
        vendor: Vendor,
        faults: Faults,
        *,
        repository: Path | None = None,
        streaming: Streaming | None = None,
    ) -> None:
        self.asked: list[tuple[str, tuple[Range, ...] | None]] = []
        self.statuses: list[int] = []
        self._state, self._vendor, self._faults = state, vendor, faults
        self._repository = repository or vendor.repository
        self._streaming = streaming

    @contextmanager
    def serve(self, listening: socket.socket) -> Iterator[None]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        done = loop.create_future()
        running = asyncio.run_coroutine_threadsafe(self._run(listening, ready, done), loop)
        running.add_done_callback(lambda _: ready.set())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            assert ready.wait(60), "the gateway's content server did not start"
            yield
            loop.call_soon_threadsafe(done.set_result, None)
            running.result(60)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(60)
            loop.close()

    async def _run(self, listening: socket.socket, ready: threading.Event, done: "asyncio.Future[None]") -> None:
        disk, registry = Disk(), Registry([NAME])
        store = Store(disk, self._state / "store")
        async with UpstreamServer(self._repository) as upstream, wan_session() as session:
            way = HttpUpstream(session, upstream.url, retry=Retry(attempts=2, first_s=0.01))
            mirrors = Mirrors([self._mirror(disk, store, way, registry)], {NAME: 3600})
            assert (await mirrors.refresh(NAME)).problem == ""
            upstream.faults = self._faults  # from here on: metadata is no concern of this test
            relays = Relays(store.layout.sparse, disk, mirrors.sources_of, publish=store.publish, find=store.find)
            content = ContentServer(mirrors, store.find, relays, OpenFiles(), streaming=self._streaming)
            application = content_application(StockContent(registry, content).routes())
            application.middlewares.insert(0, self._note)  # outermost: it sees refusals too
            runner = make_runner(application)
            await runner.setup()
            await web.SockSite(runner, listening).start()
            ready.set()
            try:
                await done
            finally:
                await runner.cleanup()
                await relays.close()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = request.headers.get("Range")
        self.asked.append((request.raw_path, None if wanted is None else parse_range(wanted, 1 << 40, max_ranges=1024)))
        response = await handler(request)
        self.statuses.append(response.status)
        return response

    def _mirror(self, disk: Disk, store: Store, upstream: HttpUpstream, registry: Registry) -> Mirror:
        floor = Floor(disk, (self._state / "floor-1", self._state / "floor-2"))
        if not floor.exists():
            floor.create()
        pki, current = make_pki(), Current(upstream)
        trusted = store.layout.trusted(NAME)
        repository = Repository(NAME, trusted=trusted, root=self._vendor.root, fetcher=current, disk=disk, floor=floor, now=now)
        anchors = (pki.root.certificate,), (pki.intermediate.certificate,)

        def inspect(file: Path, info: TargetInfo) -> None:
            if info.path.endswith(".swu"):
                policy = CmsPolicy(anchors[0], now(), anchors[1])
                registry.learn(info, verify_bundle(file, policy, provenance=Provenance.TUF, target=info))

        return Mirror(repository, current, [upstream], store, hardware=(), inspect=inspect, now=now, shown=registry.shown)
