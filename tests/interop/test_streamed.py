"""What real clients make of a long answer that is sent while it comes: curl, zckdl, and swupdate that has nothing yet."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.simulators.upstream import Faults
from gateway.south.streamed import Streaming
from tests.builders.relayed import make_zck, until
from tests.builders.stock_listener import Listener
from tests.interop.stock_site import FOREIGN, StockSite, Vendor
from tests.interop.swupdate_peer import Surroundings, SwupdatePeer, Verdict
from tests.peers import need_tool

pytestmark = pytest.mark.interop

WINDOW = 120_000
BRIEF = Streaming(window_bytes=WINDOW, from_bytes=300_000, hold_s=0.5, pause_s=0.05)
PARTIAL_FILE, RECEIVE_ERROR = 18, 56  # curl(1)


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    made = Listener(tmp_path, make_zck(tmp_path), streaming=BRIEF)
    runner = await made.start(peers=True)
    yield made
    made.upstream.gate.set()
    await runner.cleanup()
    await made.site.relays.close()
    made.files.close()


def url_of(listener: Listener) -> str:
    return f"http://127.0.0.1:{listener.port}/repositories/plant/{listener.info.wire_path}"


async def start(tool: str, *arguments: str, folder: Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(need_tool(tool), *arguments, cwd=folder, stdout=pipe, stderr=pipe)


async def finish(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(60):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def test_curl_gets_the_beginning_before_the_rest_is_here(tmp_path: Path, listener: Listener) -> None:
    out, size = tmp_path / "out", len(listener.image)
    listener.upstream.gate_from = size // 2
    listener.upstream.gate.clear()
    curl = await start("curl", "-sS", "-N", "-f", "-o", str(out), url_of(listener), folder=tmp_path)
    await until(lambda: size_of(out) >= WINDOW, within_s=30)
    assert curl.returncode is None
    listener.upstream.gate.set()
    assert await finish(curl) == 0
    assert out.read_bytes() == listener.image


async def test_curl_sees_that_a_body_was_cut_and_goes_on_where_it_was(tmp_path: Path, listener: Listener) -> None:
    out, upstream = tmp_path / "out", listener.upstream
    upstream.gate_from = len(listener.image) // 2
    upstream.gate.clear()
    curl = await start("curl", "-sS", "-N", "-f", "-o", str(out), url_of(listener), folder=tmp_path)
    await until(lambda: size_of(out) >= WINDOW, within_s=30)
    upstream.fail_after = 0
    upstream.gate.set()
    assert await finish(curl) in {PARTIAL_FILE, RECEIVE_ERROR}
    assert out.read_bytes() == listener.image[: size_of(out)]
    assert size_of(out) < len(listener.image)
    upstream.fail_after = None
    resumed = await start("curl", "-sS", "-f", "-C", "-", "-o", str(out), url_of(listener), folder=tmp_path)
    assert await finish(resumed) == 0
    assert out.read_bytes() == listener.image
    assert upstream.bytes_asked() < 2 * len(listener.image)


async def test_zckdl_that_has_nothing_yet_gets_the_file(tmp_path: Path, listener: Listener) -> None:
    listener.upstream.gate_from = len(listener.image) // 2
    listener.upstream.gate.clear()
    folder = tmp_path / "client"
    folder.mkdir()
    zckdl = await start("zckdl", url_of(listener), folder=folder)
    await until(lambda: any(size_of(file) > WINDOW for file in folder.iterdir()), within_s=30)
    listener.upstream.gate.set()
    assert await finish(zckdl) == 0
    (file,) = folder.iterdir()
    assert file.read_bytes() == listener.image


def install(state: Path, vendor: Vendor, site: StockSite) -> Verdict:
    """One run from a slot of other content."""
    slots = vendor.fill_slots(state / "slots")
    (slots / "a").write_bytes(b"\x5a" * len(vendor.old))
    around = Surroundings(mounts=((slots, vendor.slots),))
    return SwupdatePeer(state).install(vendor.bundles[FOREIGN, 150], serve=site.serve, around=around)


def test_swupdate_that_has_nothing_yet_takes_one_long_range_at_the_speed_of_the_line(tmp_path: Path) -> None:
    """Its one request is for more than is held."""
    vendor, streaming = Vendor(tmp_path), Streaming(window_bytes=200_000, from_bytes=500_000)
    state = tmp_path / "state"
    state.mkdir()
    site = StockSite(state, vendor, Faults(bytes_per_s=2 << 20), streaming=streaming)
    verdict = install(state, vendor, site)
    assert verdict.succeeded, verdict.log
    (asked,) = {ranges for _, ranges in site.asked}
    assert asked is not None
    assert (len(asked), set(site.statuses)) == (1, {206})
    assert asked[0].length > 500_000
    assert (state / "slots" / "b").read_bytes() == vendor.new
