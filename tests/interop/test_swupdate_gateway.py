"""Unmodified swupdate behind the gateway: the demo's own bundle, its chunks through the gateway's ranges."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from gateway.demo.images import build_images
from gateway.demo.release import REPOSITORY, Release, publish_releases
from gateway.north.mirrors import Mirrors
from gateway.north.sources import Current, FolderUpstream, HttpUpstream
from gateway.north.upstream import Mirror
from gateway.simulators.upstream import UpstreamServer
from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.relays import Relays
from gateway.south.routes import content_application, make_runner
from tests.interop.swupdate_peer import SwupdatePeer
from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import HeaderIndex, parse_header
from update.durable import Disk
from update.publish.images import zck_header
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import TargetInfo
from update.wire.session import wan_session

pytestmark = pytest.mark.interop


def ignore(*_anything: object) -> None:
    """No progress, no second opinion."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    work = tmp_path_factory.mktemp("demo")
    (work / "devices").mkdir()
    images = build_images(work, seed=3, cap_bytes=12 << 20, progress=ignore)
    return publish_releases(images, work, Disk(), ignore, devices=work / "devices")


class GatewayContent:
    """The gateway's content side over one upstream, on a socket that it is given; runs in a thread of its own."""

    def __init__(self, state: Path, release: Release) -> None:
        self._state = state
        self._release = release
        self.image_bytes = 0

    @contextmanager
    def serve(self, listening: socket.socket) -> Iterator[None]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        done = loop.create_future()
        thread = threading.Thread(target=lambda: loop.run_until_complete(self._run(listening, ready, done)))
        thread.start()
        try:
            assert ready.wait(30), "the gateway's content server did not start"
            yield
        finally:
            loop.call_soon_threadsafe(done.set_result, None)
            thread.join(30)
            loop.close()

    async def _run(self, listening: socket.socket, ready: threading.Event, done: "asyncio.Future[None]") -> None:
        disk = Disk()
        store = Store(disk, self._state / "store")
        async with UpstreamServer(self._release.folder) as upstream, wan_session() as session:
            mirrors = Mirrors([self._mirror(disk, store, HttpUpstream(session, upstream.url))], {REPOSITORY: 3600})
            await mirrors.refresh(REPOSITORY)
            relays = Relays(store.layout.sparse, disk, mirrors.sources_of, publish=store.publish, find=store.find)
            content = ContentServer(mirrors, store.find, relays, OpenFiles())
            runner = make_runner(content_application(content.stock_routes()))
            await runner.setup()
            await web.SockSite(runner, listening).start()
            ready.set()
            try:
                await done
            finally:
                await runner.cleanup()
                await relays.close()
            images = (count for path, count in upstream.traffic.per_path_bytes.items() if path.endswith(".zck"))
            self.image_bytes += sum(images)

    def _mirror(self, disk: Disk, store: Store, upstream: HttpUpstream | FolderUpstream) -> Mirror:
        floor = Floor(disk, (self._state / "floor-1", self._state / "floor-2"))
        if not floor.exists():
            floor.create()
        current = Current(upstream)
        repository = Repository(
            REPOSITORY,
            trusted=store.layout.trusted(REPOSITORY),
            root=self._release.root.read_bytes(),
            fetcher=current,
            disk=disk,
            floor=floor,
            now=_now,
        )
        return Mirror(repository, current, [upstream], store, hardware=(), inspect=_trust, now=_now)


def _now() -> datetime:
    return datetime.now(UTC)


def _trust(_file: Path, _info: TargetInfo) -> None:
    """The bundle's own signature is what swupdate judges here."""


def header_of(release: Release, version: str) -> HeaderIndex:
    return parse_header(zck_header(release.built[version].deltas[0].file))


def image_of(release: Release, version: str) -> Path:
    return release.folder.parent / f"rootfs-{version}.ext4"


def fill_slots(release: Release, version: str) -> Path:
    """Slot a holds `version`, slot b zeros; the file of slot b."""
    devices = release.folder.parent / "devices"
    content = image_of(release, version).read_bytes()
    (devices / "rootfs-a").write_bytes(content)
    (devices / "rootfs-b").write_bytes(bytes(len(content)))
    return devices / "rootfs-b"


def test_an_unmodified_swupdate_fetches_the_delta_through_the_gateway(tmp_path: Path, release: Release) -> None:
    gateway = GatewayContent(tmp_path, release)
    peer = SwupdatePeer(tmp_path, anchors=release.anchors)
    new = header_of(release, "1.2")
    needed = plan_delta(new, Source.of_index(header_of(release, "1.0"))).fetch_bytes

    written = fill_slots(release, "1.0")
    verdict = peer.install(release.built["1.2"].file, select="stable,copy2", serve=gateway.serve)
    assert verdict.succeeded, verdict.log
    assert written.read_bytes() == image_of(release, "1.2").read_bytes()
    last_chunk = new[len(new) - 1].length  # swupdate 2022.12 never finds the last chunk of its source
    assert needed <= gateway.image_bytes <= 1.05 * (needed + last_chunk + new.header_size)

    before, written = gateway.image_bytes, fill_slots(release, "1.0")
    verdict = peer.install(release.built["1.2"].file, select="stable,copy2", serve=gateway.serve)
    assert verdict.succeeded, verdict.log
    assert written.read_bytes() == image_of(release, "1.2").read_bytes()
    assert gateway.image_bytes == before, "the second device cost upstream something"


def test_a_chunk_that_upstream_falsified_never_reaches_a_slot(tmp_path: Path, release: Release) -> None:
    (zck,) = (release.folder / "targets").glob("*.rootfs-1.2.zck")
    good = zck.read_bytes()
    zck.write_bytes(good[: header_of(release, "1.2").header_size] + bytes(len(good) - header_of(release, "1.2").header_size))
    try:
        written = fill_slots(release, "1.0")
        verdict = SwupdatePeer(tmp_path, anchors=release.anchors).install(
            release.built["1.2"].file, select="stable,copy2", serve=GatewayContent(tmp_path, release).serve
        )
    finally:
        zck.write_bytes(good)
    assert not verdict.succeeded
    assert written.read_bytes() != image_of(release, "1.2").read_bytes()
