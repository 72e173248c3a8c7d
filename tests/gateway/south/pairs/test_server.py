"""Patches over a real listener: made while nodes are told to wait, then served like any content; or refused with a reason."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import aiohttp
import pytest

from gateway.south.identity import Identity
from gateway.south.open_files import OpenFiles
from gateway.south.pairs.server import Images, PairPatches
from gateway.south.pairs.workshop import Order, Workshop
from gateway.south.routes import listen, make_runner, south_application
from tests.builders.pair_site import MEMORY, PairSite
from tests.builders.relayed import until
from tests.update.chunks.edits import read_of
from update.chunks.pair import PatchForm, apply_pair, form_of
from update.digest import Digest, digest_of
from update.errors import BusyError
from update.trust.verified import TargetCustom

NODE = Identity("n1", Digest("0" * 64))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    fields: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Gateway:
    """A south listener that offers patches and nothing else; `node` is who asks."""

    site: PairSite
    workshop: Workshop
    session: aiohttp.ClientSession
    url: str = ""
    node: Identity | None = NODE

    async def ask(self, method: str = "GET", *, name: str = "new", base: str = "old", **more: str) -> Reply:
        """`more`: other parameters, and Range."""
        headers = {"Range": more.pop("span")} if "span" in more else {}
        query = {"from": self.site.header(base).sha256, "memory": str(MEMORY), **more}
        url = f"{self.url}/repositories/plant/patches/{self.site.infos[name].wire_path}"
        async with self.session.request(method, url, params=query, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    async def made(self, **more: str) -> Reply:
        """Asked until it is there."""
        async with asyncio.timeout(120):
            while (reply := await self.ask(**more)).status == 202:  # noqa: ASYNC110 - as a node asks
                await asyncio.sleep(0.05)
        return reply


@pytest.fixture
async def gateway(pair_site: PairSite) -> AsyncIterator[Gateway]:
    files, workshop = OpenFiles(), pair_site.workshop()
    part = PairPatches(
        Images(pair_site, pair_site.stored, pair_site.bases), pair_site.shelf, workshop, files, memory_bytes=MEMORY
    )
    async with aiohttp.ClientSession() as session:
        gateway = Gateway(pair_site, workshop, session)
        runner = make_runner(south_application([part], open_to_all=[], identify=lambda _: gateway.node))
        await runner.setup()
        gateway.url = f"http://127.0.0.1:{await listen(runner, ['127.0.0.1'], 0, None, key='south')}"
        work = asyncio.create_task(workshop.run())
        try:
            yield gateway
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await runner.cleanup()
            files.close()


def applied(site: PairSite, form: PatchForm, patch: bytes) -> bytes:
    old, new, out = (site.images / "old").read_bytes(), (site.images / "new").stat().st_size, list[bytes]()
    apply_pair(form, io.BytesIO(patch), read_of(old), len(old), out.append, size=new, memory_bytes=MEMORY)
    return b"".join(out)


@pytest.mark.parametrize(("memory", "form"), [(MEMORY, PatchForm.WINDOWS), (MEMORY - 1, PatchForm.LIBRSYNC)])
async def test_a_node_waits_for_its_patch_and_gets_the_form_that_its_memory_allows(
    gateway: Gateway, memory: int, form: PatchForm
) -> None:
    first = await gateway.ask("HEAD", memory=str(memory))
    assert (first.status, first.fields["Retry-After"]) == (202, "10")
    reply = await gateway.made(memory=str(memory))
    assert (reply.status, form_of(reply.fields["Content-Type"])) == (200, form)
    assert reply.fields["ETag"] == f'"{digest_of(reply.body)}"'
    assert applied(gateway.site, form, reply.body) == (gateway.site.images / "new").read_bytes()
    head = await gateway.ask("HEAD", memory=str(memory))
    assert (head.status, head.fields["Content-Length"], head.body) == (200, str(len(reply.body)), b"")


async def test_a_patch_is_read_in_ranges(gateway: Gateway) -> None:
    whole = (await gateway.made()).body
    reply = await gateway.ask(span=f"bytes=100-{len(whole)}")
    assert (reply.status, reply.body) == (206, whole[100:])
    assert reply.fields["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert form_of(reply.fields["Content-Type"]) is PatchForm.WINDOWS


async def test_a_hundred_nodes_cost_one_patch(gateway: Gateway) -> None:
    statuses = {(await gateway.ask()).status for _ in range(3)} | {
        reply.status for reply in await asyncio.gather(*(gateway.ask() for _ in range(97)))
    }
    assert statuses <= {200, 202}
    assert (await gateway.made()).status == 200
    assert len(gateway.site.grown) == 1


async def test_a_patch_that_was_evicted_is_made_again(gateway: Gateway) -> None:
    before = (await gateway.made()).body
    (path,) = gateway.site.store.layout.pairs.iterdir()
    path.unlink()
    assert (await gateway.ask()).status == 202
    assert (await gateway.made()).body == before


async def test_who_shows_no_certificate_gets_nothing(gateway: Gateway) -> None:
    gateway.node = None
    assert (await gateway.ask()).status == 401


async def test_nothing_is_made_unless_both_images_are_complete_here(gateway: Gateway) -> None:
    for name, base in (("other", "old"), ("new", "other")):
        reply = await gateway.ask(name=name, base=base)
        assert reply.status == 404
        assert b"not complete here" in reply.body
    gateway.site.keep("other")
    assert (await gateway.ask(base="other")).status == 202


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"from": "old"}, 400, "SHA-256 of a zchunk header"),
        ({"memory": "much"}, 400, "memory"),
        ({"memory": "9" * 16}, 400, "memory"),
        ({"from": "0" * 64}, 404, "0000 is not complete here"),
        ({"base": "new"}, 404, "begin from"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason(gateway: Gateway, query: dict[str, str], status: int, words: str) -> None:
    reply = await gateway.ask(**query)
    assert reply.status == status
    assert words in reply.body.decode()


async def test_only_what_is_listed_and_relayed_has_patches(gateway: Gateway) -> None:
    new = gateway.site.listed["new"]
    gateway.site.listed["new"] = replace(new, custom=TargetCustom())
    assert b"no .zck" in (await gateway.ask()).body
    del gateway.site.listed["new"]
    assert b"lists no" in (await gateway.ask()).body


async def test_why_there_is_no_patch_is_told_to_whoever_asks_later(gateway: Gateway) -> None:
    gateway.site.full = True
    assert (await gateway.ask()).status == 202
    pair = gateway.site.pair()
    await until(lambda: gateway.workshop.wait_s(pair) is None, within_s=120.0)
    reply = await gateway.ask()
    assert reply.status == 404
    assert b"the quota is used" in reply.body


async def test_too_many_pairs_are_not_waited_for(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_order: Order) -> None:
        raise BusyError("too many wait")

    monkeypatch.setattr(gateway.workshop, "order", full)
    assert (await gateway.ask()).status == 503
