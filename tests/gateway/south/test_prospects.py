"""What a delta takes of a node is told from what is really here: stored bundles, complete bodies, bitmaps of relayed ones."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.fleet.variants import ABSENT, WHOLE, Outlook, asked_by_stock
from gateway.south.prospects import MAX_BUNDLES, StoredProspects
from gateway.south.registry import Registry
from gateway.south.sparse import SparseFile
from tests.builders.delta_bundle import bundle_info, verified_delta
from tests.builders.relayed import index_of, info_of, make_next, make_zck
from update.bundle.deltas import Delta, deltas
from update.durable import Disk
from update.errors import NotStoredError
from update.trust.verified import TargetInfo

URL, NEXT_URL = "http://plant.example/1.zck", "http://plant.example/2.zck"


@dataclass
class Site:
    """Two versions: `old` and `new` are delta bundles, `body` is what the new one fetches from."""

    folder: Path
    old: TargetInfo
    new: TargetInfo
    body: TargetInfo
    zck: Path
    old_zck: Path
    bundles: dict[TargetInfo, tuple[Delta, ...]]
    registry: Registry
    stored: set[TargetInfo]
    upstreams: list[str] = field(default_factory=list)
    read: list[TargetInfo] = field(default_factory=list)

    def prospects(self) -> StoredProspects:
        return StoredProspects(self.deltas_of, self.registry, self.find, self.folder, lambda _body: self.upstreams)

    def find(self, info: TargetInfo) -> Path | None:
        return self.zck if info in self.stored else None

    def deltas_of(self, info: TargetInfo) -> tuple[Delta, ...]:
        self.read.append(info)
        if info not in self.stored:
            raise NotStoredError(info.path)
        return self.bundles.get(info, ())

    def relayed(self) -> SparseFile:
        return SparseFile.open(Disk(), self.folder / f"{self.body.sha256}.zck", index_of(self.zck))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folders = [tmp_path / name for name in ("old", "new", "sparse")]
    for folder in folders:
        folder.mkdir()
    old_zck = make_zck(folders[0])
    zck = make_next(folders[1], old_zck, at=0.5)
    registry, bundles = Registry(["plant"]), {}
    for folder, each, url in ((folders[0], old_zck, URL), (folders[1], zck, NEXT_URL)):
        bundle = verified_delta(folder, each, url)
        info = bundle_info(bundle.file, path=f"os/{folder.name}.swu")
        bundles[info] = deltas(bundle)
        registry.learn(info, bundle)
    old, new = bundles
    body = info_of(zck)
    registry.shown("plant", [old, new, body])
    return Site(folders[2], old, new, body, zck, old_zck, bundles, registry, {old, new})


async def test_a_delta_is_judged_by_what_the_node_runs_and_what_can_be_reached(site: Site) -> None:
    new, old = index_of(site.zck).header, index_of(site.old_zck).header
    asked = asked_by_stock(new, old)
    bytes_asked = sum(new[number].length for number in asked)
    prospects = site.prospects()
    assert await prospects.outlook(site.new, [site.old]) == Outlook(bytes_asked, bytes_asked, len(asked), ())
    site.upstreams = ["wan"]
    assert await prospects.outlook(site.new, [site.old]) == Outlook(bytes_asked, bytes_asked, len(asked), ("wan",))
    unknown = await prospects.outlook(site.new, [])
    assert unknown.asked_bytes == new.total_length - new.header_size > bytes_asked
    site.stored.discard(site.old)
    assert await site.prospects().outlook(site.new, [site.old]) == unknown


async def test_a_delta_whose_chunks_are_in_a_relayed_file_needs_no_upstream(site: Site) -> None:
    new, old = index_of(site.zck).header, index_of(site.old_zck).header
    content = site.zck.read_bytes()
    asked = asked_by_stock(new, old)
    sparse = site.relayed()
    prospects = site.prospects()
    for count in (len(asked) - 1, len(asked)):
        chunks = [new[number] for number in asked[:count]]
        sparse.accept(sparse.write((chunk.index, content[chunk.start : chunk.start + chunk.length]) for chunk in chunks))
        sparse.commit()
        found = await prospects.outlook(site.new, [site.old])
        assert (found.missing_chunks, found.complete) == (len(asked) - count, count == len(asked))
    sparse.close()


async def test_who_has_a_body_is_asked_only_while_chunks_are_missing(site: Site) -> None:
    asked: list[TargetInfo] = []

    async def look(body: TargetInfo) -> None:
        asked.append(body)
        site.upstreams = ["hawkbit"]

    def prospects() -> StoredProspects:
        return StoredProspects(site.deltas_of, site.registry, site.find, site.folder, lambda _body: site.upstreams, look=look)

    assert (await prospects().outlook(site.new, [site.old])).upstreams == ("hawkbit",)
    assert asked == [site.body]
    site.stored.add(site.body)
    assert (await prospects().outlook(site.new, [site.old])).complete
    assert asked == [site.body]


async def test_a_url_that_stands_for_another_header_is_of_no_use_to_a_delta(site: Site) -> None:
    site.upstreams = ["wan"]
    claimed = replace(next(iter(site.bundles[site.new])), url=URL)  # which the other bundle has
    site.bundles[site.new] = (claimed,)
    site.registry.shown("plant", [site.old, site.new, site.body, info_of(site.old_zck, path="os/old.zck")])
    assert not (await site.prospects().outlook(site.new, [site.old])).complete


async def test_a_complete_body_needs_no_upstream(site: Site) -> None:
    site.stored.add(site.body)
    found = await site.prospects().outlook(site.new, [])
    assert (found.missing_bytes, found.complete, found.whole) == (0, True, False)


async def test_a_delta_whose_body_nobody_lists_cannot_be_completed(site: Site) -> None:
    site.upstreams = ["wan"]
    site.registry.shown("plant", [site.old, site.new])
    assert not (await site.prospects().outlook(site.new, [site.old])).complete


def gone(site: Site, bundle: TargetInfo) -> None:
    site.stored.discard(bundle)


def whole(site: Site, bundle: TargetInfo) -> None:
    del site.bundles[bundle]


@pytest.mark.parametrize(("change", "expected"), [(gone, ABSENT), (whole, WHOLE)])
async def test_a_bundle_without_deltas_is_whole_and_one_that_went_is_not_offered(
    site: Site, change: Callable[[Site, TargetInfo], None], expected: Outlook
) -> None:
    change(site, site.new)
    assert await site.prospects().outlook(site.new, [site.old]) == expected


async def test_the_bundles_asked_for_last_are_read_once(site: Site) -> None:
    prospects = site.prospects()
    for _ in range(3):
        await prospects.outlook(site.new, [site.old])
    assert site.read == [site.new, site.old]
    for number in range(MAX_BUNDLES):
        other = replace(site.new, path=f"os/{number}.swu")
        site.stored.add(other)
        await prospects.outlook(other, [])
    await prospects.outlook(site.new, [])
    assert site.read.count(site.new) == 2
