"""What nodes are going to ask for is counted as they count it, and nothing is guessed for those that are not known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.config import PrefetchMode
from gateway.database.engine import Database
from gateway.database.records import ClientKind, OpenOrder, Running
from gateway.fleet import needs as module
from gateway.fleet.chosen import ChosenModes, chosen_modes
from gateway.fleet.needs import Lookout, Need, bytes_of, needs
from gateway.fleet.nodes import Assigner, Order
from gateway.fleet.variants import asked_by_stock
from tests.builders.fleet import Clock, Shelf, bundle, register
from tests.builders.relayed import index_of, info_of, make_next, make_zck
from update.bundle.deltas import Delta
from update.chunks.plan import Source, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import digest_of
from update.errors import NotStoredError
from update.trust.verified import TargetInfo

VERSIONS = ("1.0", "1.1", "1.2")


@pytest.fixture(scope="module")
def zcks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Three versions of one image, each with something new."""
    made = {"1.0": make_zck(tmp_path_factory.mktemp("1.0"))}
    made["1.1"] = make_next(tmp_path_factory.mktemp("1.1"), made["1.0"], at=0.1)
    made["1.2"] = make_next(tmp_path_factory.mktemp("1.2"), made["1.1"], at=0.6, seed=7)
    return made


@dataclass(slots=True)
class Vendor:
    """A repository that lists a bundle and an image of each version, and reads them on demand."""

    zcks: Mapping[str, Path]
    shelf: Shelf = field(init=False)
    bundles: dict[str, TargetInfo] = field(init=False)
    images: dict[str, TargetInfo] = field(init=False)
    read: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    image_name: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bundles = {version: bundle(version, "board:1") for version in self.zcks}
        self.images = {version: info_of(zck, path=f"os/image-{version}.zck") for version, zck in self.zcks.items()}
        self.shelf = Shelf({"plant": [*self.bundles.values(), *self.images.values()]})

    def index(self, version: str) -> HeaderIndex:
        return index_of(self.zcks[version]).header

    def deltas_of(self, info: TargetInfo) -> tuple[Delta, ...]:
        version = info.custom.version
        self.read.append(version)
        if version in self.broken:
            raise NotStoredError(f"{info.path} is not stored")
        name = self.image_name.get(version, "rootfs")
        return (Delta(name, f"http://plant/targets/{version}.zck", index_of(self.zcks[version])),)

    def order(self, *, running: str = "", kind: ClientKind = ClientKind.AGENT, nodes: int = 1, wanted: str = "1.2") -> OpenOrder:
        info = self.bundles[wanted]
        sha256 = self.bundles[running].sha256 if running else ""
        return OpenOrder("plant", info.path, info.sha256, kind, Running(running, sha256), nodes)

    def needs(self, *orders: OpenOrder, mode: PrefetchMode = PrefetchMode.UNION) -> module.Needs:
        return needs([(order, mode) for order in orders], self.shelf.content, self.deltas_of)


@pytest.fixture
def vendor(zcks: Mapping[str, Path]) -> Vendor:
    return Vendor(zcks)


def bytes_in(need: Need) -> set[int]:
    return {position for piece in need.pieces for span in piece for position in range(span.start, span.end)}


def planned(new: HeaderIndex, *installed: HeaderIndex) -> set[int]:
    spans = [span for old in installed for span in plan_delta(new, Source.of_index(old)).ranges]
    return {position for span in spans for position in range(span.start, span.end)}


def test_the_union_is_what_the_plans_of_all_nodes_fetch(vendor: Vendor) -> None:
    (need,) = vendor.needs(vendor.order(running="1.0", nodes=3), vendor.order(running="1.1")).images
    new, *installed = (vendor.index(version) for version in ("1.2", "1.0", "1.1"))
    assert bytes_in(need) == planned(new, *installed)
    assert planned(new, installed[1]) < bytes_in(need), "the older node lacks more"
    assert need.wanted_bytes == len(bytes_in(need)) < new.total_length // 2
    assert (need.target, need.nodes, need.unknown) == (vendor.images["1.2"], 4, 0)
    assert need.bundles == {vendor.bundles["1.2"].sha256}


def test_stock_clients_are_counted_by_what_they_ask_for(vendor: Vendor) -> None:
    (need,) = vendor.needs(vendor.order(running="1.1", kind=ClientKind.SWUPDATE)).images
    new, old = vendor.index("1.2"), vendor.index("1.1")
    assert need.wanted_bytes == sum(new[number].length for number in asked_by_stock(new, old))
    assert bytes_in(need) > planned(new, old), "it never finds the last chunk of its source, and asks for zeros"


@pytest.mark.parametrize("why", ["it has not said", "not listed", "not stored", "another image", "no chunks", "of RAUC"])
def test_a_node_whose_image_is_not_known_is_left_to_on_demand_and_counted(vendor: Vendor, why: str) -> None:
    order = vendor.order(running="1.0", nodes=2)
    if why == "it has not said":
        order = vendor.order(nodes=2)
    elif why == "not listed":
        vendor.shelf.content["plant"].remove(vendor.bundles["1.0"])
    elif why == "not stored":
        vendor.broken.add("1.0")
    elif why == "another image":
        vendor.image_name["1.0"] = "bootloader"
    elif why == "no chunks":
        vendor.bundles["1.0"] = replace(vendor.bundles["1.0"], path="os/whole.raucb")
        order = replace(order, running=Running("", str(digest_of(b"else"))))
    else:
        order = replace(order, kind=ClientKind.RAUC)
    found = vendor.needs(order, vendor.order(running="1.1"))
    (need,) = found.images
    assert (need.nodes, need.unknown) == (1, 2)
    assert bytes_in(need) == planned(vendor.index("1.2"), vendor.index("1.1"))
    assert found.troubles == ()


def test_full_is_all_of_it_whatever_runs(vendor: Vendor) -> None:
    (need,) = vendor.needs(vendor.order(nodes=5), vendor.order(running="1.1"), mode=PrefetchMode.FULL).images
    index = vendor.index("1.2")
    assert bytes_in(need) == set(range(index.header_size, index.total_length))
    assert (need.nodes, need.unknown) == (6, 0)
    assert set(vendor.read) == {"1.2"}, "what runs was not read"


def test_on_demand_needs_nothing(vendor: Vendor) -> None:
    found = vendor.needs(vendor.order(running="1.0"), mode=PrefetchMode.ON_DEMAND)
    assert found == module.Needs()
    assert vendor.read == []


def test_each_ordered_release_is_counted_by_its_own_nodes(vendor: Vendor) -> None:
    older, newer = vendor.needs(vendor.order(running="1.0", wanted="1.1"), vendor.order(running="1.1")).images
    assert [older.target, newer.target] == [vendor.images["1.1"], vendor.images["1.2"]]
    assert bytes_in(older) == planned(vendor.index("1.1"), vendor.index("1.0"))
    assert bytes_in(newer) == planned(vendor.index("1.2"), vendor.index("1.1"))


def test_what_cannot_be_read_or_had_is_told_and_the_rest_is_counted(vendor: Vendor) -> None:
    vendor.broken.add("1.1")
    orders = [vendor.order(running="1.0", wanted="1.1"), vendor.order(running="1.0")]
    found = vendor.needs(*orders)
    assert [(info, str(error)) for info, _, error in found.troubles] == [
        (vendor.bundles["1.1"], f"{vendor.bundles['1.1'].path} is not stored")
    ]
    assert [need.target for need in found.images] == [vendor.images["1.2"]]
    assert found.ordered == {vendor.bundles["1.1"].sha256, vendor.bundles["1.2"].sha256}
    vendor.shelf.content["plant"].remove(vendor.images["1.2"])
    assert [error.code for _, _, error in vendor.needs(*orders).troubles] == ["store.not-found", "wire.not-found"]


def test_what_is_ordered_and_no_longer_listed_needs_nothing_and_is_remembered_as_ordered(vendor: Vendor) -> None:
    vendor.shelf.content["plant"].remove(vendor.bundles["1.2"])
    found = vendor.needs(vendor.order(running="1.0"))
    assert found == module.Needs(ordered=frozenset({vendor.bundles["1.2"].sha256}))


def test_a_stock_node_may_be_offered_a_delta_that_brings_the_same_release(vendor: Vendor) -> None:
    whole = replace(vendor.bundles["1.2"], path="os/whole-1.2.swu", sha256=digest_of(b"whole"))
    delta = replace(vendor.bundles["1.2"], custom=replace(vendor.bundles["1.2"].custom, delta_of="os/whole-1.2.swu"))
    vendor.shelf.content["plant"] = [whole, delta, vendor.bundles["1.1"], *vendor.images.values()]
    read, vendor_deltas = [], vendor.deltas_of

    def deltas_of(info: TargetInfo) -> tuple[Delta, ...]:
        read.append(info)
        return () if info == whole else vendor_deltas(info)

    stock = OpenOrder("plant", whole.path, whole.sha256, ClientKind.SWUPDATE, vendor.order(running="1.1").running, 1)
    (need,) = needs([(stock, PrefetchMode.UNION)], vendor.shelf.content, deltas_of).images
    assert need.target == vendor.images["1.2"]
    assert need.bundles == {whole.sha256}, "the order is for the whole one"
    agent = replace(stock, kind=ClientKind.AGENT)
    assert needs([(agent, PrefetchMode.UNION)], vendor.shelf.content, deltas_of).images == ()


@pytest.mark.parametrize(
    ("max_bytes", "max_ranges"), [(module.PIECE_BYTES, module.PIECE_RANGES), (70_000, 60), (1, 1), (10**7, 1)]
)
def test_pieces_are_small_and_end_with_a_chunk(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, max_bytes: int, max_ranges: int
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", max_bytes)
    monkeypatch.setattr(module, "PIECE_RANGES", max_ranges)
    for mode in (PrefetchMode.UNION, PrefetchMode.FULL):
        (need,) = vendor.needs(vendor.order(running="1.0"), mode=mode).images
        index = vendor.index("1.2")
        seen: list[int] = []
        for piece in need.pieces:
            numbers = [number for span in piece for number in index.covering(span.start, span.length)]
            assert bytes_of(piece) == sum(index[number].length for number in numbers)
            assert bytes_of(piece) <= max_bytes or len(numbers) == 1
            assert len(piece) <= max_ranges
            assert list(piece) == list(_merged(piece))
            seen += numbers
        assert seen == sorted(set(seen))
        assert need.wanted_bytes == sum(index[number].length for number in seen)


def _merged(piece: tuple[Range, ...]) -> Iterator[Range]:
    for before, span in zip((None, *piece), piece, strict=False):
        assert before is None or before.end < span.start, "neighbours travel as one range"
        yield span


async def test_a_lookout_reads_bundles_only_when_something_has_changed(vendor: Vendor, database: Database, clock: Clock) -> None:
    now = [0.0]
    modes = {"plant": PrefetchMode.UNION}
    lookout = Lookout(database, vendor.shelf, modes, vendor.deltas_of, provable=["plant"], clock=lambda: now[0])
    running = Running("1.0", vendor.bundles["1.0"].sha256)
    await register(database, clock, "n1", "n2", running=running)
    nothing = await lookout.look()
    assert nothing.images == ()
    await Assigner(database, vendor.shelf, clock).assign(Order("1.2", ("n1",), "test"))
    first = await lookout.look()
    assert [need.nodes for need in first.images] == [1]
    vendor.read.clear()
    now[0] += 10 * module.AGAIN_S
    assert await lookout.look() is first
    assert vendor.read == []
    await Assigner(database, vendor.shelf, clock).assign(Order("1.2", ("n2",), "test"))
    assert [need.nodes for need in (await lookout.look()).images] == [2]
    vendor.broken.add("1.2")
    vendor.shelf.content["plant"].remove(vendor.images["1.0"])
    trouble = await lookout.look()
    assert len(trouble.troubles) == 1
    vendor.broken.clear()
    assert await lookout.look() is trouble, "it is not read again at once"
    now[0] += module.AGAIN_S
    assert [need.nodes for need in (await lookout.look()).images] == [2]


async def test_what_was_chosen_with_an_order_counts_before_what_is_configured(
    vendor: Vendor, database: Database, clock: Clock
) -> None:
    lookout = Lookout(database, vendor.shelf, {"plant": PrefetchMode.ON_DEMAND}, vendor.deltas_of, provable=["plant"])
    await register(database, clock, "n1", "n2", running=Running("1.0", vendor.bundles["1.0"].sha256))
    assigner, modes = Assigner(database, vendor.shelf, clock), ChosenModes(database)
    await assigner.assign(Order("1.2", ("n1",), "test"))
    await assigner.assign(Order("1.1", ("n2",), "test"))
    assert (await lookout.look()).images == ()
    await modes.choose([vendor.bundles["1.2"].sha256], PrefetchMode.FULL)
    assert [(need.target, need.mode) for need in (await lookout.look()).images] == [(vendor.images["1.2"], PrefetchMode.FULL)]
    await modes.choose([vendor.bundles["1.1"].sha256, digest_of(b"never ordered")], PrefetchMode.UNION)
    assert {need.mode for need in (await lookout.look()).images} == {PrefetchMode.FULL, PrefetchMode.UNION}
    await modes.choose([vendor.bundles["1.2"].sha256], PrefetchMode.ON_DEMAND)
    assert [need.target for need in (await lookout.look()).images] == [vendor.images["1.1"]]
    await assigner.assign(Order("1.2", ("n2",), "test"))
    await modes.choose([], PrefetchMode.FULL)
    async with database.reading() as transaction:
        assert await chosen_modes(transaction) == {vendor.bundles["1.2"].sha256: PrefetchMode.ON_DEMAND}, "the other has ended"


async def test_an_order_of_a_repository_that_cannot_prove_its_bundles_is_told_so(
    vendor: Vendor, database: Database, clock: Clock
) -> None:
    lookout = Lookout(database, vendor.shelf, {}, vendor.deltas_of, provable=())
    await register(database, clock, "n1")
    await Assigner(database, vendor.shelf, clock).assign(Order("1.2", ("n1",), "test"))
    await ChosenModes(database).choose([vendor.bundles["1.2"].sha256], PrefetchMode.FULL)
    ((bundle_info, mode, error),) = (await lookout.look()).troubles
    assert (bundle_info, mode, error.code) == (vendor.bundles["1.2"], PrefetchMode.FULL, "usage.configuration")
    assert "cms_roots" in str(error)


def test_of_one_image_in_two_modes_all_is_fetched(vendor: Vendor) -> None:
    union = (vendor.order(running="1.1"), PrefetchMode.UNION)
    full = (vendor.order(running="1.0", nodes=2), PrefetchMode.FULL)
    for orders in ([union, full], [full, union]):
        (need,) = needs(orders, vendor.shelf.content, vendor.deltas_of).images
        assert (need.mode, need.nodes) == (PrefetchMode.FULL, 3)
        assert need.wanted_bytes == vendor.index("1.2").total_length - vendor.index("1.2").header_size
