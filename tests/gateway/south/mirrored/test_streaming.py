"""Large content that lasts is sent while it comes; what turns out wrong ends in a cut and is not kept."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.sections.routes import RouteKind
from gateway.south.mirrored.growing import STREAM_FROM_BYTES, Growing
from tests.builders.mirrored_site import FileUpstream, Site, route, site, upstream
from update.errors import UnreachableError

CONTENT = random.Random(8).randbytes(3 * STREAM_FROM_BYTES)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"app/blobs/sha256:{DIGEST}"
EARLY = STREAM_FROM_BYTES
CUT = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionResetError)


@dataclass
class Slow(FileUpstream):
    """Sends `early` bytes, and the rest when `more` is set; then it breaks off, if `breaks`."""

    more: asyncio.Event = field(default_factory=asyncio.Event)
    breaks: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        content = self.files[request.path.lstrip("/")]
        self.asked.append((request.path.lstrip("/"), ""))
        response = web.StreamResponse(headers=self.headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[:EARLY])
        await self.more.wait()
        if self.breaks:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        await response.write(content[EARLY:])
        return response


@dataclass
class Place:
    """A route over a slow upstream, and the path at which its content is."""

    gateway: Site
    origin: Slow
    url: str

    def get(self, **headers: str) -> "aiohttp.client._RequestContextManager":
        return self.gateway.session.get(self.url, headers=headers)

    async def whole(self, **headers: str) -> tuple[int, bytes]:
        async with self.get(**headers) as response:
            return response.status, await response.read()

    def nothing_is_kept(self, folder: Path) -> bool:
        return (self.gateway.objects.used_bytes, list((folder / "staging").iterdir())) == (0, [])


@pytest.fixture
def content() -> bytes:
    return CONTENT


@pytest.fixture(params=[RouteKind.IMMUTABLE, RouteKind.OCI])
async def place(request: pytest.FixtureRequest, content: bytes, tmp_path: Path) -> AsyncIterator[Place]:
    kind: RouteKind = request.param
    path, prefix = (BLOB, "v2") if kind is RouteKind.OCI else ("images/a.img", "mirror")
    async with upstream(Slow({path: content}, headers={"Content-Type": "application/x-layer"})) as origin:
        assert isinstance(origin, Slow)
        async with site(tmp_path, route(kind, origin.url)) as gateway:
            yield Place(gateway, origin, f"{gateway.url}/{prefix}/{path}")
        origin.more.set()  # or its end would wait for who still sends


only_proved = pytest.mark.parametrize("place", [RouteKind.OCI], indirect=True)
only_unproved = pytest.mark.parametrize("place", [RouteKind.IMMUTABLE], indirect=True)


async def test_the_first_byte_does_not_wait_for_the_last_and_many_cost_one_request(place: Place) -> None:
    async with place.get() as first, place.get() as second, place.get(Range=f"bytes={1000}-") as third:
        assert await first.content.readexactly(100_000) == CONTENT[:100_000]
        assert await second.content.readexactly(100_000) == CONTENT[:100_000]
        assert await third.content.readexactly(100_000) == CONTENT[1000:101_000]
        assert (first.status, second.status, third.status) == (200, 200, 206)
        assert third.headers["Content-Range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
        place.origin.more.set()
        assert await first.read() == CONTENT[100_000:]
        assert await second.read() == CONTENT[100_000:]
        assert await third.read() == CONTENT[101_000:]
    await place.gateway.mirror.get(*place.origin.files)  # until it is kept
    async with place.get() as later:
        assert (await later.read(), later.headers["ETag"]) == (CONTENT, f'"{DIGEST}"')
    assert len(place.origin.asked) == 1


async def test_a_head_is_answered_before_the_content_is_there(place: Place) -> None:
    async with place.gateway.session.head(place.url) as response:
        assert (response.status, response.content_length) == (200, len(CONTENT))
    place.origin.more.set()
    assert await place.whole() == (200, CONTENT)


@only_unproved
async def test_a_range_that_has_come_is_answered_at_once_where_nothing_proves_content(place: Place) -> None:
    assert await place.whole(Range="bytes=5-99") == (206, CONTENT[5:100])
    assert not place.origin.more.is_set()


@only_proved
async def test_a_registry_tells_type_and_digest_also_while_it_streams(place: Place) -> None:
    async with place.get() as response:
        told = response.content_type, response.headers["Docker-Content-Digest"], response.headers["ETag"]
        assert told == ("application/x-layer", f"sha256:{DIGEST}", f'"{DIGEST}"')
        place.origin.more.set()
        await response.read()


@pytest.mark.parametrize("headers", [{"Range": "bytes=0-9,20-29"}, {"If-Range": '"x"', "Range": "bytes=0-9"}, {"If-Match": "*"}])
async def test_what_needs_the_whole_waits_for_it(place: Place, headers: dict[str, str]) -> None:
    waiting = asyncio.create_task(place.whole(**headers))
    async with place.get() as beside:
        await beside.content.readexactly(1000)
        assert not waiting.done()
        place.origin.more.set()
        await beside.read()
    status, body = await waiting
    assert (status, CONTENT[:10] in body) == (206 if "," in headers.get("Range", "") else 200, True)


async def test_a_range_behind_the_end_is_refused(place: Place) -> None:
    async with place.get(Range=f"bytes={len(CONTENT)}-") as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    place.origin.more.set()


async def test_a_client_that_goes_away_disturbs_nobody(place: Place) -> None:
    async with place.get() as stays:
        leaves = await place.get()
        await leaves.content.readexactly(1000)
        leaves.close()
        await stays.content.readexactly(1000)
        place.origin.more.set()
        assert await stays.read() == CONTENT[1000:]
    assert len(place.origin.asked) == 1


async def test_content_goes_on_when_its_only_client_leaves(place: Place) -> None:
    async with place.get() as leaves:
        await leaves.content.readexactly(1000)
    place.origin.more.set()
    assert await place.whole() == (200, CONTENT)
    assert len(place.origin.asked) == 1


async def test_an_upstream_that_breaks_off_is_a_cut_and_nothing_is_kept(place: Place, tmp_path: Path) -> None:
    place.origin.breaks = True
    async with place.get() as response:
        await response.content.readexactly(1000)
        place.origin.more.set()
        with pytest.raises(CUT):
            await response.read()
    assert place.nothing_is_kept(tmp_path)
    place.origin.breaks = False
    assert await place.whole() == (200, CONTENT)


@only_proved
@pytest.mark.parametrize("content", [CONTENT[:-1] + b"\0", b"\0" + CONTENT[1:]], ids=["at its end", "at its start"])
@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=10-19"}, {"Range": f"bytes={EARLY - 5}-{EARLY + 5}"}], ids=str)
async def test_no_answer_from_wrong_content_is_complete(place: Place, tmp_path: Path, asked: dict[str, str]) -> None:
    place.origin.more.set()
    with pytest.raises(CUT):
        await place.whole(**asked)
    assert place.nothing_is_kept(tmp_path)
    place.origin.files[BLOB] = CONTENT
    assert await place.whole() == (200, CONTENT)


async def test_who_reads_when_the_gateway_goes_down_is_cut(place: Place) -> None:
    async with place.get() as response:
        await response.content.readexactly(1000)
        await place.gateway.mirror.close()
        with pytest.raises(CUT):
            await response.read()


def test_a_growing_file_is_closed_with_its_last_reader(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb+") as file:
        growing = Growing(file.fileno(), 10, "", has_proof=False)
    lease = growing.lend()
    growing.end(None)
    os.fstat(lease.descriptor)
    lease.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lease.descriptor)


@pytest.mark.parametrize("step", [lambda each: each.grew(6), lambda each: each.end(UnreachableError("gone"))])
async def test_a_reader_waits_for_bytes_then_for_the_proof(tmp_path: Path, step: Callable[[Growing], None]) -> None:
    with (tmp_path / "x").open("wb+") as file:
        growing = Growing(file.fileno(), 10, "", has_proof=True)
    growing.grew(5)
    assert await growing.until(4, last=False) == 5
    readers = [asyncio.ensure_future(growing.until(5, last=False)), asyncio.ensure_future(growing.until(4, last=True))]
    await asyncio.sleep(0)
    assert not any(reader.done() for reader in readers)
    step(growing)
    growing.proved()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert found == [6, 6] or (isinstance(found[0], UnreachableError), found[1]) == (True, 5)
