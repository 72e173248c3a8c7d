"""Finding the gateway and being let in: real TLS, real multicast on the loopback interface."""

import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.config import PatchesSection
from node_agent.discovery import Discovery, Search, urls_of
from node_agent.link import Credentials, Link
from tests.builders.repository import RepositoryBuilder
from tests.builders.site import Site
from tests.node_agent.gateway_double import NODE, Gateway
from update.chunks.pair import PatchForm, PatchOffer
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import (
    ConfigurationError,
    NotFoundError,
    PeerIdentityError,
    ProtocolError,
    UnauthorizedError,
    UnreachableError,
)
from update.store.journal import Journal
from update.store.staging import Staged
from update.wire.service import Candidate, announce

# Whatever announces itself on loopback meanwhile would be tried, too.
pytestmark = pytest.mark.xdist_group("mdns")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Site]:
    return Site(tmp_path_factory.mktemp("ours")), Site(tmp_path_factory.mktemp("theirs"), "other-plant")


@pytest.fixture(scope="module")
def repository() -> RepositoryBuilder:
    builder = RepositoryBuilder()
    builder.add_target("os.swu", b"x" * 300_000)
    builder.publish()
    return builder


@pytest.fixture
async def gateway(sites: tuple[Site, Site], repository: RepositoryBuilder) -> AsyncIterator[Gateway]:
    async with Gateway(sites[0], "plant", repository).serve() as serving:
        yield serving


def make_link(folder: Path, site: Site, search: Search, disk: Disk | None = None) -> Link:
    (folder / "token").write_text("one-time\n")
    disk = disk or Disk()
    credentials = Credentials(NODE, site.ca, folder / "keys/node.key", folder / "keys/node.pem", folder / "token")
    return Link(Discovery(search, Journal(disk, folder / "gateway.json")), credentials, disk)


async def test_the_first_contact_makes_a_key_and_gets_a_certificate_for_the_token(tmp_path: Path, gateway: Gateway) -> None:
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as link, link.controller() as client:
        assert (await client.poll()).attributes_wanted
    assert stat.S_IMODE((tmp_path / "keys/node.key").stat().st_mode) == 0o600
    assert gateway.token == ""
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as again, again.controller() as client:
        await client.poll()
    assert sum("simpleenroll" in line for line in gateway.asked) == 1


async def test_a_wrong_token_is_refused_and_nothing_is_kept_but_the_key(tmp_path: Path, gateway: Gateway) -> None:
    gateway.token += "x"
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as link:
        with pytest.raises(UnauthorizedError):
            await link.reach()
    assert not (tmp_path / "keys/node.pem").exists()


async def test_a_missing_token_says_what_to_do(tmp_path: Path, gateway: Gateway) -> None:
    link = make_link(tmp_path, gateway.site, Search(gateway.url))
    (tmp_path / "token").unlink()
    async with link:
        with pytest.raises(ConfigurationError, match="fieldrelay gateway token"):
            await link.reach()


async def test_a_gateway_of_another_site_is_refused(tmp_path: Path, gateway: Gateway, sites: tuple[Site, Site]) -> None:
    async with make_link(tmp_path, sites[1], Search(gateway.url)) as link:
        with pytest.raises(PeerIdentityError, match="no gateway of this site"):
            await link.reach()
    assert gateway.asked == []
    assert not (tmp_path / "gateway.json").exists()


async def test_a_spoofed_announcement_is_refused_with_its_code_and_the_next_one_tried(
    tmp_path: Path, gateway: Gateway, sites: tuple[Site, Site], caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        spoof = await stack.enter_async_context(Gateway(sites[1], "plant", gateway.repository).serve())
        await stack.enter_async_context(announce("a-spoof", spoof.port, interfaces=["127.0.0.1"]))
        search = Search(interfaces=("127.0.0.1",), browse_s=20)
        link = await stack.enter_async_context(make_link(tmp_path, gateway.site, search))
        with pytest.raises(PeerIdentityError, match="no gateway of this site"):
            await (make_link(tmp_path, gateway.site, replace(search, browse_s=3))).reach()
        await stack.enter_async_context(announce("the-gateway", gateway.port, interfaces=["127.0.0.1"]))
        await link.reach()
        assert spoof.asked == []
    assert "wire.identity" in caplog.text
    assert (Journal(Disk(), tmp_path / "gateway.json").read() or {}) == {"url": gateway.url}


async def test_the_last_good_gateway_is_found_without_multicast(tmp_path: Path, gateway: Gateway) -> None:
    Journal(Disk(), tmp_path / "gateway.json").write({"url": gateway.url})
    async with make_link(tmp_path, gateway.site, Search(interfaces=("127.0.0.1",), browse_s=0.01)) as link:
        await link.reach()


async def test_a_candidate_that_was_refused_is_not_tried_again_by_another_name(
    tmp_path: Path, gateway: Gateway, sites: tuple[Site, Site]
) -> None:
    tried: list[str] = []

    async def refuse(url: str) -> None:
        tried.append(url)
        raise PeerIdentityError("not ours")

    journal = Journal(Disk(), tmp_path / "gateway.json")
    journal.write({"url": gateway.url})
    local = ["127.0.0.1"]
    async with announce("once", gateway.port, interfaces=local), announce("twice", gateway.port, interfaces=local):
        with pytest.raises(PeerIdentityError, match="tried"):
            await Discovery(Search(interfaces=("127.0.0.1",), browse_s=2), journal).find(refuse)
    assert tried.count(gateway.url) == 1  # whoever else announces himself on this machine is tried as well


@pytest.mark.parametrize("damage", [b"{", b'{"body":{"url":5},"checksum":"","format_version":1}'])
async def test_a_damaged_memory_of_the_gateway_is_only_forgotten(tmp_path: Path, gateway: Gateway, damage: bytes) -> None:
    (tmp_path / "gateway.json").write_bytes(damage)
    async with make_link(tmp_path, gateway.site, Search(interfaces=("127.0.0.1",), browse_s=0.01)) as link:
        with pytest.raises(UnreachableError, match=r"no gateway answers on 127\.0\.0\.1"):
            await link.reach()


async def test_a_gateway_that_moved_is_looked_for_again_with_the_same_session(tmp_path: Path, sites: tuple[Site, Site]) -> None:
    builder = RepositoryBuilder()
    journal = Journal(Disk(), tmp_path / "gateway.json")
    link = make_link(tmp_path, sites[0], Search(interfaces=("127.0.0.1",), browse_s=0.01))
    async with link:
        async with Gateway(sites[0], "plant", builder).serve() as first:
            journal.write({"url": first.url})
            await link.reach()
        with pytest.raises(UnreachableError):
            await link.reach()
        async with Gateway(sites[0], "plant", builder).serve() as second:
            journal.write({"url": second.url})
            await link.reach()
            assert second.asked


async def test_metadata_bundles_and_ranges_come_through_the_link(tmp_path: Path, gateway: Gateway) -> None:
    path = next(path for path in gateway.repository.files if path.startswith("targets/"))
    gateway.zck["targets/root.zck"] = tmp_path / "root.zck"
    (tmp_path / "root.zck").write_bytes(bytes(range(256)) * 100)
    seen: list[tuple[int, int]] = []
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as link:
        fetcher = link.fetcher("plant")
        assert await fetcher.fetch("metadata/1.root.json", max_bytes=1 << 20) == gateway.repository.root_bytes
        with pytest.raises(NotFoundError):
            await fetcher.fetch("metadata/9.root.json", max_bytes=1 << 20)
        with Staged(Disk(), tmp_path / "staged", tmp_path / "record", length=300_000) as staged:
            await link.download("plant", path, staged, lambda done, total: seen.append((done, total)))
        pieces = [piece async for piece in link.read_ranges("plant", "targets/root.zck", [(5, 10), (600, 3)])]
    assert digest_of((tmp_path / "staged").read_bytes()) == digest_of(gateway.repository.files[path])
    assert seen[-1] == (300_000, 300_000)
    assert {offset + index: byte for offset, data in pieces for index, byte in enumerate(data)} == {
        offset: offset % 256 for offset in (*range(5, 15), *range(600, 603))
    }


async def test_a_patch_comes_through_the_link(tmp_path: Path, gateway: Gateway) -> None:
    gateway.zck["patches/targets/root.zck"] = tmp_path / "patch"
    (tmp_path / "patch").write_bytes(bytes(range(256)) * 1000)
    base, limits, offer = Digest("ab" * 32), PatchesSection(wait_s=0), PatchOffer(PatchForm.WINDOWS, 256_000)
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as link:
        assert await link.find_patch("plant", "targets/root.zck", base, limits) is None  # in no form that is known
        assert await link.find_patch("plant", "targets/other.zck", base, limits) is None
        pieces = [piece async for piece in link.read_patch("plant", "targets/root.zck", base, offer, limits)]
        wrong = PatchOffer(PatchForm.WINDOWS, 256_001)
        with pytest.raises(ProtocolError):
            assert [piece async for piece in link.read_patch("plant", "targets/root.zck", base, wrong, limits)]
    assert b"".join(pieces) == bytes(range(256)) * 1000


async def test_a_path_that_would_leave_the_repository_is_never_asked_for(tmp_path: Path, gateway: Gateway) -> None:
    async with make_link(tmp_path, gateway.site, Search(gateway.url)) as link:
        with pytest.raises(ProtocolError):
            await link.fetcher("plant").fetch("../other/metadata/1.root.json", max_bytes=10)


def test_only_address_and_port_of_an_announcement_are_used() -> None:
    candidate = Candidate("x", ("192.0.2.1", "192.0.2.2"), 8443, gateway="evil", path="/evil", fingerprint="00")
    assert urls_of(candidate) == ["https://192.0.2.1:8443", "https://192.0.2.2:8443"]
