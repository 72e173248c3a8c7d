"""The real swupdate with its handler `swuforward` as the master above the gateway: it ends as the nodes below end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from gateway.database.records import ActionState
from tests.builders.bundles import describe, image, signed
from tests.builders.north_site import bundle_bytes
from tests.builders.push_site import PATIENCE_S, PushSite, push_site
from tests.interop.swupdate_peer import Serve, Surroundings, SwupdatePeer, Verdict
from tests.peers import need_tool

pytestmark = pytest.mark.interop

_PORT = 8081


@pytest.fixture(autouse=True)
def swupdate() -> None:
    need_tool("swupdate")


def around(folder: Path, inner: bytes, url: str) -> Path:
    """A bundle of the master's, which forwards `inner` to `url`."""
    forward = image("inner.swu", inner, type="swuforward", properties={"url": [url]})
    del forward["device"]
    return signed(folder, describe(images=[forward]), {"inner.swu": inner}, name="outer.swu")


def serving(site: PushSite) -> Serve:
    """The site's listener on a socket of the master's own network."""
    loop = asyncio.get_running_loop()

    async def start(listening: socket.socket) -> web.SockSite:
        opened = web.SockSite(site.upstream.door._runner, listening)
        await opened.start()
        return opened

    @contextmanager
    def serve(listening: socket.socket) -> Iterator[None]:
        opened = asyncio.run_coroutine_threadsafe(start(listening.dup()), loop).result(PATIENCE_S)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(opened.stop(), loop).result(PATIENCE_S)

    return serve


@asynccontextmanager
async def pushing(site: PushSite, folder: Path, inner: bytes, user: str = "") -> AsyncIterator["asyncio.Task[Verdict]"]:
    """The master installs a bundle that forwards `inner`; its verdict."""
    outer = around(folder, inner, f"http://{user}127.0.0.1:{_PORT}")
    options = Surroundings(port=_PORT, proxy=False)
    peer, serve = SwupdatePeer(folder), serving(site)
    verdict = asyncio.create_task(asyncio.to_thread(peer.install, outer, serve=serve, around=options))
    try:
        yield verdict
    finally:
        await asyncio.wait([verdict])


async def ordered(site: PushSite, node: str, verdict: "asyncio.Task[Verdict]") -> None:
    """Wait until a node is ordered something."""
    async with asyncio.timeout(PATIENCE_S):
        while (await site.ground.fleet.progress.standing(node)).action is None:
            assert not verdict.done(), verdict.result().log
            await asyncio.sleep(0.02)


async def test_the_master_succeeds_when_the_last_node_was_verified_and_not_before(tmp_path: Path) -> None:
    async with push_site(tmp_path) as site:
        await site.add_node("n1")
        await site.add_node("n2")
        async with pushing(site, tmp_path, bundle_bytes(tmp_path)) as verdict:
            await ordered(site, "n2", verdict)
            await site.succeed("n1")
            assert (await site.action("n2")).state is ActionState.OPEN
            assert not verdict.done()
            await site.succeed("n2")
            assert (await verdict).succeeded, verdict.result().log
            assert "Change status on http://127.0.0.1:8081 : SUCCESS" in verdict.result().log


async def test_the_master_fails_when_a_node_fails(tmp_path: Path) -> None:
    async with push_site(tmp_path) as site:
        await site.add_node("n1")
        async with pushing(site, tmp_path, bundle_bytes(tmp_path)) as verdict:
            await ordered(site, "n1", verdict)
            await site.say("n1", "closed", "failure", "cannot write")
            assert (await verdict).refused, verdict.result().log
            assert "Change status on http://127.0.0.1:8081 : FAILURE" in verdict.result().log


async def test_the_master_fails_at_once_for_what_cannot_be_proved(tmp_path: Path) -> None:
    content = bytearray(bundle_bytes(tmp_path))
    content[content.index(b"root file system")] ^= 1
    async with push_site(tmp_path) as site:
        await site.add_node("n1")
        async with pushing(site, tmp_path, bytes(content)) as verdict:
            assert (await verdict).refused, verdict.result().log
        assert (await site.ground.fleet.progress.standing("n1")).action is None
        assert site.stored() == []


async def test_the_master_fails_at_once_without_the_credentials_and_while_another_upload_is_under_way(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("line:secret\n")
    inner = bundle_bytes(tmp_path)
    async with push_site(tmp_path, credentials=tmp_path / "credentials") as site:
        await site.add_node("n1")
        for name, user in (("without", ""), ("with", "line:secret@")):
            (tmp_path / name).mkdir()
            async with pushing(site, tmp_path / name, inner, user) as verdict:
                if not user:
                    assert (await verdict).refused, verdict.result().log
                    continue
                await ordered(site, "n1", verdict)
                (tmp_path / "second").mkdir()
                async with pushing(site, tmp_path / "second", inner, user) as second:
                    assert (await second).refused, second.result().log
                await site.succeed("n1")
                assert (await verdict).succeeded, verdict.result().log
