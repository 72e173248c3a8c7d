"""Content over real listeners: what is listed is served, whole or partly filled, and nothing else is."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.south.content import ContentServer
from gateway.south.identity import Identity
from gateway.south.open_files import OpenFiles
from gateway.south.routes import content_application, listen, make_runner, south_application
from gateway.south.unstored import Unstored
from tests.builders.relay_site import RelaySite
from tests.builders.relayed import MemorySource, index_of, info_of, make_zck, open_descriptors, until
from update.chunks.ranges import MultipartParser, Range, format_range, parse_boundary
from update.digest import Digest, digest_of
from update.errors import StoreError
from update.trust.verified import TargetCustom, TargetInfo

BUNDLE = random.Random(1).randbytes(400_000)
TIMESTAMP = b'{"signed": "and mirrored as it came"}\n'


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def image(zck: Path) -> bytes:
    return zck.read_bytes()


class Catalogue:
    """What verified metadata lists, in memory."""

    def __init__(self, targets: Sequence[TargetInfo], metadata: dict[tuple[str, str], bytes]) -> None:
        self._targets = {(info.repository, info.wire_path): info for info in targets}
        self._metadata = metadata
        self.lacking: list[str] = []

    def unread(self) -> list[str]:
        return self.lacking

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        return self._targets.get((repository, wire_path))

    def metadata(self, repository: str, name: str) -> bytes | None:
        return self._metadata.get((repository, name))


class Reply:
    """A response as it came."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = b""

    def parts(self) -> dict[int, bytes]:
        """The parts of a multipart answer by their offset, in their order."""
        boundary = parse_boundary(self.fields["content-type"])
        assert boundary is not None
        found: dict[int, bytes] = {}
        end = -1
        for offset, piece in MultipartParser(boundary).feed(self.body):
            if offset == end:
                found[next(reversed(found))] += piece
            else:
                found[offset] = piece
            end = offset + len(piece)
        return found


class Gateway:
    """Both listeners over one store: agents' and stock clients'."""

    def __init__(self, folder: Path, zck: Path) -> None:
        self.upstream = MemorySource(zck.read_bytes())
        self.site = RelaySite(folder, {"plant": [self.upstream]}, hold_s=20.0)
        self.image = info_of(zck)
        self.bundle = TargetInfo("plant", "os/board.swu", len(BUNDLE), digest_of(BUNDLE), TargetCustom(), "targets")
        self.absent = TargetInfo("plant", "os/gone.swu", 5, Digest("0" * 64), TargetCustom(), "targets")
        self.site.keep(self.bundle, BUNDLE)
        self.files = OpenFiles()
        self.catalogue = Catalogue(
            [self.image, self.bundle, self.absent], {("plant", "timestamp.json"): TIMESTAMP, ("plant", "1.root.json"): b"{}"}
        )
        self.content = ContentServer(self.catalogue, self.site.find, self.site.relays, self.files)
        self.ports: dict[str, int] = {}

    async def start(self) -> list[web.AppRunner]:
        agents = south_application([self.content], open_to_all=[], identify=lambda _: Identity("n1", Digest("0" * 64)))
        runners = []
        for name, application in (("agents", agents), ("stock", content_application(self.content.stock_routes()))):
            runners.append(make_runner(application))
            await runners[-1].setup()
            self.ports[name] = await listen(runners[-1], ["127.0.0.1"], 0, None, key=name)
        return runners

    async def raw(self, listener: str, request: bytes, *, bodiless: bool = False) -> Reply:
        """Send bytes, read one response; the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[listener], limit=1 << 20)
        try:
            writer.write(request)
            reply = Reply(await reader.readuntil(b"\r\n\r\n"))
            if not bodiless:
                reply.body = await reader.readexactly(int(reply.fields.get("content-length", "0")))
            return reply
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def get(self, path: str, *headers: str, method: str = "GET") -> Reply:
        """As an agent."""
        request = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gw", *headers, "", ""]).encode()
        return await self.raw("agents", request, bodiless=method == "HEAD")

    async def stock(self, target: str, *headers: str, method: str = "GET", host: str = "plant") -> Reply:
        """As a stock client."""
        request = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()
        return await self.raw("stock", request, bodiless=method == "HEAD")


@pytest.fixture
async def gateway(tmp_path: Path, zck: Path) -> AsyncIterator[Gateway]:
    running = Gateway(tmp_path, zck)
    runners = await running.start()
    yield running
    for runner in runners:
        await runner.cleanup()
    await running.site.relays.close()
    running.files.close()


def url(info: TargetInfo) -> str:
    return f"/repositories/{info.repository}/{info.wire_path}"


def asking(*spans: Range) -> str:
    return f"Range: {format_range(spans)}"


async def test_metadata_comes_byte_for_byte_or_is_404(gateway: Gateway) -> None:
    reply = await gateway.get("/repositories/plant/metadata/timestamp.json")
    assert (reply.status, reply.body, reply.fields["content-type"]) == (200, TIMESTAMP, "application/json")
    head = await gateway.get("/repositories/plant/metadata/timestamp.json", method="HEAD")
    assert (head.status, head.fields["content-length"]) == (200, str(len(TIMESTAMP)))
    for path in ("plant/metadata/2.root.json", "other/metadata/timestamp.json", "plant/metadata/", "plant/metadata/a/b"):
        missing = await gateway.get(f"/repositories/{path}")
        assert (missing.status, b"wire.not-found" in missing.body) == (404, True), path


async def test_of_a_repository_that_was_never_verified_nobody_is_told_that_it_lacks_something(gateway: Gateway) -> None:
    gateway.catalogue.lacking = ["plant"]
    for path in ("metadata/7.snapshot.json", f"targets/{'0' * 64}.nothing.swu"):
        reply = await gateway.get(f"/repositories/plant/{path}")
        assert (reply.status, reply.fields["retry-after"]) == (503, "10")
        assert b"wire.not-ready" in reply.body
        assert (await gateway.get(f"/repositories/other/{path}")).status == 404


async def test_a_stored_target_comes_whole_in_ranges_and_as_head(gateway: Gateway) -> None:
    path, etag = url(gateway.bundle), f'"{gateway.bundle.sha256}"'
    reply = await gateway.get(path)
    assert (reply.status, reply.body, reply.fields["etag"]) == (200, BUNDLE, etag)
    head = await gateway.get(path, "Range: bytes=0-9", method="HEAD")
    assert (head.status, head.fields["content-length"], head.fields["accept-ranges"]) == (200, str(len(BUNDLE)), "bytes")
    part = await gateway.get(path, "Range: bytes=-7")
    assert (part.status, part.body) == (206, BUNDLE[-7:])
    assert (await gateway.get(path, "Range: bytes=400000-")).status == 416
    unchanged = await gateway.get(path, f"If-None-Match: W/{etag}, {etag}")
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (await gateway.get(path, 'If-Match: "another"')).status == 412


async def test_a_target_that_is_listed_and_not_stored_is_404(gateway: Gateway) -> None:
    reply = await gateway.get(url(gateway.absent))
    assert (reply.status, b"wire.not-found" in reply.body) == (404, True)


async def test_of_a_partly_filled_file_only_what_is_asked_is_fetched(gateway: Gateway, zck: Path, image: bytes) -> None:
    path, index = url(gateway.image), index_of(zck).header
    spans = [Range(index[number].start, index[number].length) for number in (3, 9, 30)]
    reply = await gateway.get(path, asking(*spans))
    assert reply.status == 206
    assert list(reply.parts().items()) == [(span.start, image[span.start : span.end]) for span in spans]
    assert gateway.upstream.bytes_asked() == index.header_size + sum(span.length for span in spans)
    assert reply.fields["etag"] == f'"{gateway.image.sha256}"'


async def test_conditions_and_head_of_a_partly_filled_file_cost_upstream_nothing(gateway: Gateway) -> None:
    path = url(gateway.image)
    head = await gateway.get(path, "Range: bytes=0-9", method="HEAD")
    assert (head.status, head.fields["content-length"]) == (200, str(gateway.image.length))
    assert (await gateway.get(path, f'If-None-Match: "{gateway.image.sha256}"')).status == 304
    assert (await gateway.get(path, 'If-Match: "another"', "Range: bytes=0-9")).status == 412
    beyond = await gateway.get(path, f"Range: bytes={gateway.image.length}-")
    assert (beyond.status, beyond.fields["content-range"]) == (416, f"bytes */{gateway.image.length}")
    assert gateway.upstream.requests == []


async def test_the_whole_of_a_partly_filled_file_is_completed_and_then_comes_from_the_store(
    gateway: Gateway, image: bytes
) -> None:
    path = url(gateway.image)
    await gateway.get(path, "Range: bytes=200000-300000")
    replies = await asyncio.gather(*(gateway.get(path) for _ in range(5)))
    assert all((reply.status, reply.body) == (200, image) for reply in replies)
    assert gateway.upstream.bytes_asked() == len(image)
    await gateway.site.relays.settle()
    assert gateway.site.store.find(gateway.image) is not None
    gateway.upstream.content = b""
    assert (await gateway.get(path, "Range: bytes=5-99")).body == image[5:100]
    assert gateway.site.relays.progress() == {}


async def test_without_upstream_the_ranges_that_are_held_are_answered_first(gateway: Gateway, zck: Path, image: bytes) -> None:
    """Swupdate asks for the rest then; any status but 206 ends its update."""
    path, index = url(gateway.image), index_of(zck).header
    spans = [Range(index[number].start, 100) for number in (2, 5, 8)]
    await gateway.get(path, asking(*spans[:2]))
    gateway.upstream.fail_after = 0
    two = await gateway.get(path, asking(*spans))
    assert list(two.parts().items()) == [(span.start, image[span.start : span.end]) for span in spans[:2]]
    one = await gateway.get(path, asking(spans[0], spans[2]))
    assert (one.status, one.body) == (206, image[spans[0].start : spans[0].end])
    assert one.fields["content-range"] == f"bytes {spans[0].start}-{spans[0].end - 1}/{len(image)}"
    none = await gateway.get(path, asking(spans[2], spans[0]))
    assert (none.status, b"wire.unreachable" in none.body) == (502, True)
    assert (await gateway.get(path)).status == 502


async def test_stored_content_that_is_in_use_costs_no_lookup(gateway: Gateway) -> None:
    for _ in range(20):
        assert (await gateway.get(url(gateway.bundle), "Range: bytes=5-9")).body == BUNDLE[5:10]
    assert gateway.site.looked_up == [gateway.bundle]


async def test_first_readers_share_one_lookup(gateway: Gateway) -> None:
    replies = await asyncio.gather(*(gateway.get(url(gateway.bundle), "Range: bytes=5-9") for _ in range(30)))
    assert {reply.body for reply in replies} == {BUNDLE[5:10]}
    assert gateway.site.looked_up.count(gateway.bundle) < 5


async def test_content_that_was_removed_meanwhile_is_404_and_no_defect(gateway: Gateway) -> None:
    stored = gateway.site.store.find(gateway.bundle)
    assert stored is not None
    gateway.content._find = lambda _info: stored.with_name("gone")
    reply = await gateway.get(url(gateway.bundle))
    assert (reply.status, b"wire.not-found" in reply.body) == (404, True)


ODD_PATHS = [
    "/repositories/plant/targets/../metadata/timestamp.json",
    "/repositories/plant/targets/%2e%2e/metadata/timestamp.json",
    "/repositories/plant/targets/..%2f..%2f..%2fformat_version",
    "/repositories/plant/targets//etc/passwd",
    "/repositories/plant/targets/%2fetc%2fpasswd",
    "/repositories/%2e%2e/targets/x",
    "/repositories/../targets/x",
    "/repositories/plant/targets/",
    "/repositories/plant/targets",
    "/repositories/plant/targets/os/\xff",
    "/repositories/plant/targets/os/%ff%00",
    "/repositories/plant/targets/os/board.swu",
    "/repositories/plant/trusted/root.json",
    "/repositories/plant/metadata/..%2ftargets",
    "/repositories/plant/targets/" + "a/" * 2000 + "x",
    "/format_version",
    "/",
    "*",
]


@pytest.mark.parametrize("listener", ["agents", "stock"])
@pytest.mark.parametrize("path", ODD_PATHS, ids=range(len(ODD_PATHS)))
async def test_names_are_looked_up_and_never_opened_as_paths(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, path: str, listener: str
) -> None:
    opened: list[object] = []
    really = os.open
    request = path if listener == "agents" else path.removeprefix("/repositories/plant")

    def watched(*arguments: Any, **more: Any) -> int:  # Any: the signature is the system's
        opened.append(arguments)
        return really(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", watched)
        reply = await gateway.raw(listener, f"GET {request} HTTP/1.1\r\nHost: plant\r\n\r\n".encode("latin-1"))
    assert reply.status in {400, 404}
    assert opened == []


async def test_stock_clients_name_the_repository_by_host(gateway: Gateway) -> None:
    path = f"/{gateway.bundle.wire_path}"
    for host in ("plant", "plant:8080", "PLANT"):
        assert (await gateway.stock(path, host=host)).body == BUNDLE
    for host in ("other", "127.0.0.1", "plant.example", "", "[::1]:80"):
        assert (await gateway.stock(path, host=host)).status == 404, host
    for host in ("[::1", "pl ant", "plant:99999999", "plant:port", "\xe9\xff"):
        reply = await gateway.raw("stock", f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        assert reply.status in {400, 404}, host
    assert (await gateway.raw("stock", f"GET {path} HTTP/1.0\r\n\r\n".encode())).status == 404


async def test_a_request_line_as_a_proxy_gets_it_names_the_repository_too(gateway: Gateway, zck: Path, image: bytes) -> None:
    """Libcurl with http_proxy, as measured with swupdate 2022.12: absolute form and Proxy-Connection."""
    span = Range(index_of(zck).header[4].start, 500)
    target = f"http://plant/{gateway.image.wire_path}"
    reply = await gateway.stock(target, asking(span), "Proxy-Connection: Keep-Alive", "Accept: application/octet-stream")
    assert (reply.status, reply.body) == (206, image[span.start : span.end])
    assert (await gateway.stock(target, "Range: bytes=0-0", host="proxy.example:3128")).body == image[:1]
    assert (await gateway.stock(f"http://other/{gateway.image.wire_path}", host="plant")).status == 404
    assert (await gateway.stock(f"http://plant:8080/{gateway.bundle.wire_path}")).body == BUNDLE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_content_is_read_only(gateway: Gateway, method: str) -> None:
    for reply in (
        await gateway.get(url(gateway.bundle), "Content-Length: 0", method=method),
        await gateway.stock(f"/{gateway.bundle.wire_path}", "Content-Length: 0", method=method),
    ):
        assert (reply.status, b'"code"' in reply.body) == (405, True)


async def test_nobody_gets_a_tunnel(gateway: Gateway) -> None:
    for host in ("plant:443", "127.0.0.1:22"):
        async with asyncio.timeout(10):
            reply = await gateway.raw("stock", f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nhello".encode())
        assert 400 <= reply.status < 500


async def test_nobody_is_upgraded_to_another_protocol(gateway: Gateway) -> None:
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    assert (await gateway.stock(f"/{gateway.bundle.wire_path}", *upgrade, "Range: bytes=0-4")).body == BUNDLE[:5]


async def test_thirty_two_kilobytes_of_ranges_are_read(gateway: Gateway, zck: Path, image: bytes) -> None:
    """Swupdate's own limit for URL and ranges together."""
    dice, ranges = random.Random(2), list[Range]()
    at = 100_000
    while len(format_range(ranges)) < 31_500 - 20 and len(ranges) < 1024:
        length = dice.randrange(1, 40)
        ranges.append(Range(at, length))
        at += length + dice.randrange(1, 900)
    padded = "Range: bytes=" + ",".join(f"{span.start:0>15}-{span.end - 1:0>14}" for span in ranges)
    assert 31_000 < len(padded) < 33_000
    reply = await gateway.stock(f"/{gateway.image.wire_path}", padded[:32_700].rpartition(",")[0])
    parts = reply.parts()
    assert len(parts) > 1000
    assert all(image[start : start + len(data)] == data for start, data in parts.items())


async def test_ten_thousand_tiny_ranges_are_not_served_one_by_one(gateway: Gateway) -> None:
    many = "Range: bytes=" + ",".join(f"{at}-{at}" for at in range(0, 20_000, 2))
    reply = await gateway.get(url(gateway.bundle), many)
    assert reply.status in {200, 400}
    overlapping = "Range: bytes=" + ",".join(["0-399999"] * 500)
    assert (await gateway.get(url(gateway.bundle), overlapping)).status == 416


async def test_many_clients_that_stop_in_the_middle_leave_nothing_behind(gateway: Gateway, image: bytes) -> None:
    await gateway.get(url(gateway.image), "Range: bytes=0-9")
    await gateway.get(url(gateway.bundle), "Range: bytes=0-9")
    before = open_descriptors()
    gateway.upstream.gate.clear()
    dice, writers = random.Random(5), []
    for number in range(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["agents"])
        path = url(gateway.image if number % 2 else gateway.bundle)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * dice.choice([1, 3]))
        if number % 4 == 0:
            await reader.read(dice.randrange(1, 2000))
        if number % 3 == 0:
            writer.write_eof()
        writers.append(writer)
    for writer in writers:
        writer.transport.abort()
    gateway.upstream.gate.set()
    assert (await gateway.get(url(gateway.image))).body == image
    await gateway.site.relays.settle()
    gateway.files.close()
    await until(lambda: len(open_descriptors()) < len(before))  # the published file is no longer open for writing


async def test_slow_readers_get_right_bytes_beside_fast_ones(gateway: Gateway, image: bytes) -> None:
    async def slowly(seed: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["agents"], limit=4096)
        writer.write(f"GET {url(gateway.image)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while block := await reader.read(random.Random(seed).randrange(500, 9000)):
            received += block
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        return received.partition(b"\r\n\r\n")[2]

    slow = [asyncio.create_task(slowly(seed)) for seed in range(8)]
    spans = [Range(at * 1000, 700) for at in range(1000)]
    fast = await asyncio.gather(*(gateway.get(url(gateway.image), asking(span)) for span in spans[::20]))
    assert [reply.body for reply in fast] == [image[span.start : span.end] for span in spans[::20]]
    assert set(await asyncio.gather(*slow)) == {image}


async def test_pipelined_requests_are_answered_in_order_whether_held_or_not(gateway: Gateway, image: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["agents"], limit=1 << 20)
    asked = [(gateway.image, 700_000, 20), (gateway.bundle, 5, 300_000), (gateway.image, 0, 9), (gateway.bundle, 9, 1)]
    for info, start, length in asked:
        writer.write(f"GET {url(info)} HTTP/1.1\r\nHost: x\r\n{asking(Range(start, length))}\r\n\r\n".encode())
    for info, start, length in asked:
        reply = Reply(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(int(reply.fields["content-length"]))
        assert body == (image if info is gateway.image else BUNDLE)[start : start + length]
    writer.close()
    await writer.wait_closed()


async def test_a_broken_disk_is_told_by_name(gateway: Gateway) -> None:
    async def refuse(_info: TargetInfo, _needed_bytes: int) -> None:
        raise StoreError("cannot read")

    gateway.site.relays._grow = refuse
    reply = await gateway.get(url(gateway.image), "Range: bytes=0-9")
    assert (reply.status, StoreError.code.encode() in reply.body) == (500, True)


async def test_without_room_ranges_are_passed_on_and_what_memory_cannot_hold_is_refused_by_name(
    gateway: Gateway, image: bytes
) -> None:
    gateway.site.full = True
    gateway.site.relays._unstored = Unstored(memory_bytes=300_000)
    spans = [Range(start, 10) for start in range(5, len(image), 50_000)]
    reply = await gateway.get(url(gateway.image), asking(*spans))
    parts = reply.parts()
    assert reply.status == 206
    assert 1 < len(parts) < len(spans), "the first ranges; it asks for the rest"
    assert list(parts.items()) == [(span.start, image[span.start : span.end]) for span in spans[: len(parts)]]
    for refused in ([], [asking(Range(0, len(image)))]):
        reply = await gateway.get(url(gateway.image), *refused)
        assert (reply.status, b"store.no-space" in reply.body) == (507, True)
    assert gateway.site.sparse_files == []


@pytest.mark.parametrize("asked", ["bytes=five", "bytes=" + ",".join(f"{2 * at}-{2 * at}" for at in range(1025)), "lines=1-2"])
async def test_ranges_that_cannot_be_read_do_not_pull_the_whole_file_over_the_wan(
    gateway: Gateway, image: bytes, asked: str
) -> None:
    reply = await gateway.get(url(gateway.image), f"Range: {asked}")
    assert (reply.status, gateway.upstream.requests) == (400, [])
    reply = await gateway.get(url(gateway.image), f"Range: {asked}", 'If-Range: "of another release"')
    assert (reply.status, reply.body) == (200, image), "it asked for everything then"
    await gateway.site.relays.settle()
    assert (await gateway.get(url(gateway.image), f"Range: {asked}")).status == 200, "complete content costs nothing"
